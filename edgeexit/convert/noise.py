"""Fences third-party converters, which warn, log and print on every channel there is."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

# What each one says on import or at every conversion, and nobody can act on: a switched-off CUDA
# library (torchao), a deprecation inside torch (torch.utils._pytree), what was not folded (onnxscript).
_TALKATIVE_LOGGERS = ("torchao", "torch.utils._pytree", "absl", "onnxscript", "onnx_ir")

# Read by the native parts of litert-converter; the second one silences a notice about rounding in
# operations that lowering does not run.
_QUIET_ENVIRONMENT = {
    "LITERT_TORCH_SHOW_PROGRESS": "n",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}


@contextlib.contextmanager
def quiet_third_party() -> Iterator[None]:
    """Silence warnings, loggers and progress of converters meanwhile; errors still come through."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE_LOGGERS]
    levels = [logger.level for logger in loggers]
    before = {name: os.environ.get(name) for name in _QUIET_ENVIRONMENT}
    os.environ.update(_QUIET_ENVIRONMENT)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
