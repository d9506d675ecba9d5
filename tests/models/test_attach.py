"""Exits attached to other people's models: what the model computes stays, to the last bit."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from edgeexit.errors import CannotCut, ConfigError
from edgeexit.models.attach import attach_exits
from edgeexit.models.attached import AttachedNetwork, OwnHead
from edgeexit.models.protocol import MultiExitNetwork, run_exits
from edgeexit.models.vit import ViTConfig, vit

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

AFTER = [2, 4, 5]


def images(size: tuple[int, int] = (32, 32), channels: int = 3) -> Tensor:
    return torch.rand(3, channels, *size, generator=torch.Generator().manual_seed(2))


def normalised(network: AttachedNetwork, image: Tensor) -> Tensor:
    backbone = network.config.backbone
    mean = torch.tensor(backbone.mean).reshape(1, -1, 1, 1)
    return (image - mean) / torch.tensor(backbone.std).reshape(1, -1, 1, 1)


@torch.no_grad()
def behind_the_last_norm(network: AttachedNetwork, image: Tensor) -> Tensor:
    *_, last = network.attached_stages()
    norm = last.branch.head.norm if isinstance(last.branch, OwnHead) else last.norm
    tokens: Tensor = norm(network.backbone_tokens(image))
    return tokens


@torch.no_grad()
def check_bit_equal(network: AttachedNetwork, model: nn.Module, image: Tensor) -> None:
    """The last exit says exactly what the model says, every block before it included."""
    given = normalised(network, image)
    if hasattr(model, "forward_features"):
        features, logits = model.forward_features(given), model(given)  # type: ignore[operator]
    else:
        resized = {"interpolate_pos_encoding": True} if network.config.backbone.image_height != 32 else {}
        output = model(pixel_values=given, **({} if "Dino" in type(model).__name__ else resized))
        logits = getattr(output, "logits", None)
        base = model if logits is None else getattr(model, str(getattr(model, "base_model_prefix", "")))
        features = base(pixel_values=given, **({} if "Dino" in type(model).__name__ else resized))
        features = features.last_hidden_state
    assert torch.equal(behind_the_last_norm(network, image), features)
    if network.config.final is None:
        assert torch.equal(run_exits(network, image)[-1], logits)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("VisionTransformer", {}),
        ("VisionTransformer", {"class_token": False, "global_pool": "avg"}),
        ("VisionTransformer", {"class_token": False, "global_pool": "avg", "reg_tokens": 3}),
        ("VisionTransformer", {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-2}),
        ("VisionTransformer", {"reg_tokens": 4, "global_pool": "avg", "pool_include_prefix": True}),
        ("VisionTransformer", {"qkv_bias": False, "pre_norm": True, "mlp_ratio": 3.0}),
        ("VisionTransformer", {"act_layer": "quick_gelu", "norm_layer": "layernorm"}),
        ("VisionTransformer", {"act_layer": "gelu_tanh", "global_pool": "avg", "fc_norm": False}),
        ("VisionTransformer", {"img_size": (32, 48), "in_chans": 1, "pos_embed": "none"}),
        ("VisionTransformer", {"dynamic_img_size": True, "final_norm": False}),
        ("VisionTransformerDistilled", {}),
        ("VisionTransformerDistilled", {"num_classes": 0}),
        ("VisionTransformer", {"num_classes": 0}),
    ],
)
def test_timm_models_keep_every_bit(timm_model: MakeModel, name: str, settings: dict[str, object]) -> None:
    model = timm_model(name, **settings)
    classes = 7 if settings.get("num_classes", 7) == 0 else None
    network = attach_exits(model, AFTER, "mlp", classes=classes)
    backbone = network.config.backbone
    size = (backbone.image_height, backbone.image_width)
    check_bit_equal(network, model, images(size, backbone.in_chans))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ViTForImageClassification", {"intermediate_size": 40}),
        ("ViTForImageClassification", {"qkv_bias": False, "hidden_act": "gelu_pytorch_tanh"}),
        ("ViTModel", {}),
        ("DeiTForImageClassification", {}),
        ("DeiTForImageClassificationWithTeacher", {}),
        ("DeiTModel", {}),
        ("Dinov2ForImageClassification", {"layerscale_value": 0.3}),
        ("Dinov2Model", {"mlp_ratio": 2}),
        ("Dinov2WithRegistersForImageClassification", {"num_register_tokens": 3}),
        ("Dinov2WithRegistersModel", {}),
    ],
)
def test_hugging_face_models_keep_every_bit(
    hugging_face_model: MakeModel, name: str, settings: dict[str, object]
) -> None:
    model = hugging_face_model(name, **settings)
    classes = 7 if name.endswith("Model") else None
    network = attach_exits(model, AFTER, "vit", classes=classes)
    check_bit_equal(network, model, images())


@pytest.mark.parametrize(
    "name", ["ViTForImageClassification", "DeiTForImageClassificationWithTeacher", "Dinov2Model"]
)
def test_another_image_size_resamples_positions_as_the_library_does(
    hugging_face_model: MakeModel, name: str
) -> None:
    model = hugging_face_model(name)
    network = attach_exits(model, [3], image_size=(48, 40), classes=7 if name == "Dinov2Model" else None)
    assert network.config.backbone.layout.grid_height == 6
    check_bit_equal(network, model, images((48, 40)))


def test_another_image_size_of_timm_is_timms_own(timm_model: MakeModel) -> None:
    model = timm_model(reg_tokens=2)
    network = attach_exits(model, [3], image_size=48)
    model.set_input_size(img_size=(48, 48))  # type: ignore[operator]
    check_bit_equal(network, model, images((48, 48)))


def test_our_own_vits_keep_every_bit_too() -> None:
    config = ViTConfig(
        img_size=16, patch_size=4, in_chans=1, num_classes=5, embed_dim=16, depth=6, num_heads=2,
        exits=(2, 6), mean=(0.3,), std=(0.4,), head_hidden_dims=(8,), stem_dims=(4,), mlp_ratio=2.0,
    )  # fmt: skip
    model = vit(config, seed=3).train()
    with torch.no_grad():
        model(torch.rand(8, 1, 16, 16))  # moves the stem's running means
    model.eval()
    network = attach_exits(model, [1, 3], ["cnn_add", "resmlp"])
    image = images((16, 16), 1)
    with torch.no_grad():
        expected = model(image)
    assert torch.equal(run_exits(network, image)[-1], expected[-1])
    fresh = attach_exits(model, [1], final="mlp", task="regression")
    assert [tuple(output.shape) for output in run_exits(fresh, image)] == [(3, 2)] * 2


def test_the_model_itself_is_left_as_it_was(timm_model: MakeModel) -> None:
    model = timm_model().train()
    before = copy.deepcopy(model.state_dict())
    network = attach_exits(model, AFTER, image_size=48)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_result_is_a_multi_exit_network(timm_model: MakeModel) -> None:
    model = timm_model()
    network = attach_exits(model, AFTER, ["mlp", "cnn_ignore", "vit"], transfer=True, seed=4)
    assert isinstance(network, MultiExitNetwork)
    assert not network.training
    outputs = run_exits(network, images())
    assert [tuple(output.shape) for output in outputs] == [(3, 7)] * 4
    again = attach_exits(model, AFTER, ["mlp", "cnn_ignore", "vit"], transfer=True, seed=4)
    assert all(
        torch.equal(one, other) for one, other in zip(outputs, run_exits(again, images()), strict=True)
    )


def test_a_fresh_last_exit_takes_the_place_of_the_head(timm_model: MakeModel) -> None:
    model = timm_model()
    network = attach_exits(model, AFTER, classes=3, final="linear")
    assert [output.shape[1] for output in run_exits(network, images())] == [3] * 4
    check_bit_equal(network, model, images())
    # A head that no encoder here has is no hindrance where it is not needed.
    mapped = timm_model(global_pool="map")
    attach_exits(mapped, AFTER, classes=3, final="mlp")
    with pytest.raises(CannotCut, match="pools by 'map'"):
        attach_exits(mapped, AFTER)


def test_values_and_spreads_from_a_classifier(hugging_face_model: MakeModel) -> None:
    network = attach_exits(
        hugging_face_model("ViTForImageClassification"),
        [3],
        "cnn_project",
        task="regression",
        value_offset=10.0,
        value_scale=4.0,
    )
    for output in run_exits(network, images()):
        assert output.shape == (3, 2)
        assert (output[:, 1] > 0).all()


def test_mean_and_deviation_are_the_models_own_or_as_given(
    timm_model: MakeModel, hugging_face_model: MakeModel
) -> None:
    model = timm_model()
    assert attach_exits(model, [3]).config.backbone.mean == (0.5, 0.5, 0.5)
    model.pretrained_cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}  # type: ignore[assignment]
    assert attach_exits(model, [3]).config.backbone.std == (0.4, 0.5, 0.6)
    assert attach_exits(model, [3], mean=(0.0, 0.0, 0.0)).config.backbone.mean == (0.0, 0.0, 0.0)
    dino = attach_exits(hugging_face_model("Dinov2Model"), [3], classes=2)
    assert dino.config.backbone.mean == (0.485, 0.456, 0.406)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_a_model_that_computes_something_else_is_found_out(timm_model: MakeModel) -> None:
    model = timm_model()
    model.head_drop = Doubled()
    with pytest.raises(CannotCut, match="computes something else") as caught:
        attach_exits(model, AFTER)
    assert caught.value.model == "VisionTransformer"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"qk_norm": True}, "q_norm is LayerNorm"),
        ({"scale_mlp_norm": True}, "mlp.norm is LayerNorm"),
        ({"norm_layer": "rmsnorm"}, "RmsNorm, LayerNorm is known"),
        ({"act_layer": "elu"}, "act is ELU"),
    ],
)
def test_timm_models_that_cannot_be_cut_say_why(
    timm_model: MakeModel, settings: dict[str, object], why: str
) -> None:
    with pytest.raises(CannotCut, match=why) as caught:
        attach_exits(timm_model("VisionTransformer", **settings), AFTER)
    assert caught.value.fix is not None


def test_other_blocks_and_other_classes_cannot_be_cut(
    timm_model: MakeModel, hugging_face_model: MakeModel
) -> None:
    from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer

    with pytest.raises(CannotCut, match=r"blocks\.0 is ParallelScalingBlock"):
        attach_exits(timm_model(block_fn=ParallelScalingBlock), AFTER)

    class Derived(VisionTransformer):  # type: ignore[misc,unused-ignore]
        pass

    with pytest.raises(CannotCut, match="its class is none of"):
        attach_exits(Derived(embed_dim=16, depth=4, num_heads=2), [2])
    with pytest.raises(CannotCut, match="SwiGLU"):
        attach_exits(hugging_face_model("Dinov2Model", use_swiglu_ffn=True), [3], classes=2)
    with pytest.raises(CannotCut, match="its class is none of"):
        attach_exits(hugging_face_model("ViTForMaskedImageModeling"), [3], classes=2)
    with pytest.raises(CannotCut, match=r"no VisionTransformer of timm") as caught:
        attach_exits(nn.Linear(2, 2), [1])
    assert "docs/models.md" in str(caught.value.fix)
    with pytest.raises(CannotCut, match="bfloat16"):
        attach_exits(timm_model().to(torch.bfloat16), AFTER)


@pytest.mark.parametrize(
    ("arguments", "key", "complaint"),
    [
        ({"after": [2, 6]}, "after", "do not fit a model of 6 blocks"),
        ({"after": [0, 2]}, "after", "do not fit"),
        ({"after": [4, 2]}, "after", "do not fit"),
        ({"branch": "mpl"}, "branch", "branch 'mpl' is unknown"),
        ({"final": "own"}, "branch", "branch 'own' is unknown"),
        ({"branch": ["mlp"]}, "branch", "1 branches for 2 early exits"),
        ({"classes": 3}, "classes", "3 classes for a head of 7"),
        ({"final": "mlp", "classes": 0}, "classes", "cannot be made"),
        ({"task": "regression", "classes": 7}, "classes", "no classes"),
        ({"image_size": 33}, "image_size", "VisionTransformer"),
        ({"mean": (0.5,)}, "image_size", "3 channels"),
        ({"download": True}, "download", "has its weights already"),
        ({"branch": "cnn_add", "image_size": (8, 32)}, "branch", "cannot be pooled"),
    ],
)
def test_wrong_arguments_are_refused_in_words(
    timm_model: MakeModel, arguments: dict[str, object], key: str, complaint: str
) -> None:
    given: dict[str, object] = {"after": [2, 4]} | arguments
    with pytest.raises(ConfigError, match=complaint) as caught:
        attach_exits(timm_model(), **given)  # type: ignore[arg-type]
    assert caught.value.key == key


def test_a_model_without_a_head_needs_classes(hugging_face_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="needs classes") as caught:
        attach_exits(hugging_face_model("Dinov2Model"), AFTER)
    assert "classes=" in str(caught.value.fix)
