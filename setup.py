"""Packaging: the `edgeexit` package, with the board data of `devices/` inside it."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

DEVICE = [
    "ai-edge-litert>=2.1",
    "paho-mqtt>=2.1,<3",
    "pillow>=10",
    "psutil>=5.9",
    "safetensors>=0.4",
]
# Verifying signatures; apart, because it is a tenth of what a board has to install.
TRUST = ["cryptography>=42"]
# Payloads that are compressed on their way; Python has it from 3.14 on.
ZSTD = ["backports.zstd>=1; python_version<'3.14'"]
# Less compression in less time.
LZ4 = ["lz4>=4.3"]
# tomli-w writes the configuration that a demo or a flash gives to a board.
DEPLOY = ["asyncssh>=2.18", "tomli-w>=1"]
REPORT = ["matplotlib>=3.8"]
VIDEO = ["opencv-python-headless>=4.9"]
BROKER = ["iotcore>=0.4,<0.5"]
# Stages as ONNX files; for a GPU, its build of the same package stands in.
ONNX = ["onnxruntime>=1.20"]
# torch is pinned: litert-torch is built against one torch, and its CPU build is then taken.
# The last of these export to ONNX, and run what came out.
CONVERT = [
    *("torch==2.13.0", "litert-torch==0.10.0", "ai-edge-quantizer==0.10.0", "scikit-learn>=1.4"),
    *("onnx>=1.20", "onnxscript>=0.7", *ONNX),
]
# Models that others publish. torchvision is what timm asks for; it fits the pinned torch.
MODELS = ["timm==1.0.31", "torchvision==0.28.0", "transformers>=5.20,<6", "onnx>=1.20"]
# Curves of training as they come; without it they are JSON lines alone.
TENSORBOARD = ["tensorboard>=2.16"]
# Coverage-guided fuzzing, for `make fuzz` and the benchmark of that name alone; Linux on x86 has wheels.
FUZZ = ["atheris>=2.3"]
DEV = ["hypothesis", "mypy", "pytest", "pytest-timeout", "ruff", "setuptools", "wheel"]

setup(
    name="edgeexit",
    version="0.1.0",
    description="Vision models that answer by a deadline, on small boards, over networks that come and go",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=[*find_packages(include=["edgeexit", "edgeexit.*"]), "edgeexit.devices"],
    package_dir={"edgeexit.devices": "devices"},
    package_data={
        "edgeexit": ["py.typed"],
        "edgeexit.convert": ["requirements/*.txt"],
        "edgeexit.devices": ["profiles/*.toml", "systemd/*", "broker/*", "provision/*"],
    },
    install_requires=[
        "msgspec>=0.19",
        "numpy>=1.24",
        "rich>=13",
        "tomli>=2; python_version<'3.11'",
        "typer>=0.12",
    ],
    extras_require={
        "device": DEVICE,
        "gateway": [*DEVICE, *TRUST],
        "trust": TRUST,
        "onnx": ONNX,
        "broker": BROKER,
        "zstd": ZSTD,
        "lz4": LZ4,
        "video": VIDEO,
        "deploy": [*DEPLOY, *TRUST],
        "report": REPORT,
        "convert": [*CONVERT, *DEVICE],
        "tensorboard": TENSORBOARD,
        "fuzz": FUZZ,
        "models": [*MODELS, *CONVERT, *DEVICE],
        "dev": [
            *CONVERT,
            *MODELS,
            *DEVICE,
            *TRUST,
            *DEPLOY,
            *REPORT,
            *VIDEO,
            *BROKER,
            *ZSTD,
            *LZ4,
            *TENSORBOARD,
            *DEV,
        ],
    },
    entry_points={"console_scripts": ["edgeexit = edgeexit.cli.main:main"]},
)
