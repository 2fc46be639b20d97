"""Opening and loading model folders, good and broken."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from surgeon.errors import CheckpointError
from surgeon.io import Checkpoint


@pytest.fixture
def folder(saved_llama):
    return saved_llama()


@pytest.fixture
def sharded(small_llama, tmp_path):
    path = tmp_path / "sharded"
    small_llama().save_pretrained(path, max_shard_size="40KB")
    assert (path / "model.safetensors.index.json").is_file()
    return path


def change_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def snapshot(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_opens_without_reading_tensors(folder, small_llama):
    checkpoint = Checkpoint.open(folder)
    model = small_llama()
    assert checkpoint.config.model_type == model.config.model_type
    assert checkpoint.parameters == sum(p.numel() for p in model.parameters())
    assert checkpoint.stored_bytes == 4 * checkpoint.parameters
    assert checkpoint.has_weights


@pytest.mark.parametrize("name", ["folder", "sharded"])
def test_loads_what_was_saved(name, request, small_llama):
    path = request.getfixturevalue(name)
    before = snapshot(path)
    module = Checkpoint.open(path).load_module()
    for key, tensor in small_llama().state_dict().items():
        assert torch.equal(module.state_dict()[key], tensor)
    assert not module.training
    assert snapshot(path) == before


def test_loads_in_the_dtype_asked(folder):
    assert Checkpoint.open(folder).load_module(torch.float64).dtype == torch.float64


@pytest.mark.parametrize("model", ["tiny-1m", "moe-5m", "stories260K"])
def test_shared_models_load(shared_data, model):
    checkpoint = Checkpoint.open(shared_data / "models" / model)
    module = checkpoint.load_module()
    assert checkpoint.parameters == sum(p.numel() for p in module.parameters())
    tokenizer = checkpoint.load_tokenizer()
    assert (
        tokenizer.decode(tokenizer.encode("hello there", add_special_tokens=False)).strip() == "hello there"
    )


def test_not_a_model_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a model folder: it has no config\.json"):
        Checkpoint.open(tmp_path)


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(CheckpointError, match="there is no model folder"):
        Checkpoint.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="there is no model folder"):
        Checkpoint.open("./nowhere")


def test_file_instead_of_a_folder(folder):
    with pytest.raises(CheckpointError, match="is a file, not a model folder"):
        Checkpoint.open(folder / "config.json")


def test_hub_id_without_a_hub():
    with pytest.raises(CheckpointError, match="the model hub does not give it") as caught:
        Checkpoint.open("nobody-at-all/no-such-model")
    assert caught.value.exit_status == 2


def test_config_alone_is_enough_to_open(folder):
    (folder / "model.safetensors").unlink()
    checkpoint = Checkpoint.open(folder)
    assert not checkpoint.has_weights
    assert checkpoint.fingerprint() is None
    with pytest.raises(CheckpointError, match="has a config but no weights"):
        checkpoint.load_module()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickles_are_never_loaded(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(CheckpointError, match=f"only pickled weights \\({name}\\)"):
        checkpoint.load_module()


def test_pickles_beside_safetensors_are_ignored(folder):
    (folder / "pytorch_model.bin").write_bytes(b"nonsense")
    Checkpoint.open(folder).load_module()


def test_quantised_weights_are_refused(folder):
    change_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(CheckpointError, match="quantised weights, which cannot be cut"):
        Checkpoint.open(folder).load_module()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "names no model_type"),
        ('{"hidden_size": 4}', "names no model_type"),
        ('{"model_type": "no_such_type"}', "of type 'no_such_type' is refused"),
        (
            '{"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4}',
            "of type 'llama' is refused",
        ),
    ],
)
def test_broken_config(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (4, "truncated or no safetensors"),
        (100, "truncated or no safetensors"),
        (-1, "is truncated: its header"),
    ],
)
def test_truncated_file(folder, keep, message):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(folder)


def header(entries, body=b""):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + body


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(b"{not json"), "has a corrupt header"),
        (header([1]), "is no JSON object"),
        (header({"w": 1}), "the entry of 'w'"),
        (header({"w": {**F32, "dtype": "X9"}}, b"0000"), "'w' has the unknown dtype X9"),
        (header({"w": {**F32, "shape": [2]}}, b"0000"), "needs 8 bytes, its header gives it 4"),
        (header({"w": F32}, b"00000"), "is too long: its header describes"),
        (header({"w": F32, "v": F32}, b"0000"), "'w' starts at byte|'v' starts at byte"),
        (b"x" * 200, "truncated or no safetensors file"),
    ],
)
def test_corrupt_file(folder, content, message):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(folder)


def test_missing_shard(sharded):
    gone = sorted(sharded.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(CheckpointError, match=f"lacks 1 of its .* shards: {gone.name}"):
        Checkpoint.open(sharded)


def test_index_names_absent_tensors(sharded):
    file = sharded / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["nowhere.weight"] = next(iter(index["weight_map"].values()))
    file.write_text(json.dumps(index))
    with pytest.raises(
        CheckpointError, match=r"names 1 tensors that their shards do not hold: nowhere\.weight"
    ):
        Checkpoint.open(sharded)


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"weight_map": {}}', '{"weight_map": {"w": "../x.safetensors"}}']
)
def test_broken_index(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="is no index of shards"):
        Checkpoint.open(sharded)


def test_weights_of_another_shape_than_the_config_says(folder):
    change_config(folder, intermediate_size=32)
    with pytest.raises(CheckpointError, match=r"\[40, 48\] on disk, \[32, 48\] by the config"):
        Checkpoint.open(folder).load_module()


def test_missing_tensor(folder):
    change_weights(folder, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(
        CheckpointError, match=r"do not fit its config, in 1 tensors:\n  model\.norm\.weight: not on disk"
    ):
        Checkpoint.open(folder).load_module()


def test_unexpected_tensor(folder):
    change_weights(folder, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"model\.extra\.weight: on disk, but not in the model"):
        Checkpoint.open(folder).load_module()


def test_long_lists_are_cut(folder):
    change_config(folder, num_hidden_layers=5)
    with pytest.raises(CheckpointError, match=r"in 18 tensors:[\s\S]*and 10 more"):
        Checkpoint.open(folder).load_module()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(folder, value):
    change_weights(folder, lambda tensors: tensors["model.norm.weight"].__setitem__(3, value))
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in 1 tensors: model\.norm\.weight"):
        Checkpoint.open(folder).load_module()


def test_architecture_that_is_not_there(folder):
    change_config(folder, model_type="siglip_vision_model", architectures=["Elsewhere"])
    with pytest.raises(CheckpointError, match="has no model class"):
        Checkpoint.open(folder).load_module()


def test_folder_without_tokenizer(folder):
    with pytest.raises(CheckpointError, match="has no tokenizer that can be read"):
        Checkpoint.open(folder).load_tokenizer()


def test_fingerprint_follows_the_model(folder, sharded, tmp_path):
    first = Checkpoint.open(folder).fingerprint()
    assert first is not None
    assert first.startswith("sha256:")
    assert Checkpoint.open(sharded).fingerprint() == first
    copy = shutil.copytree(folder, tmp_path / "copy")
    change_weights(copy, lambda tensors: tensors["model.norm.weight"].__setitem__(3, 2.0))
    assert Checkpoint.open(copy).fingerprint() != first
    other = shutil.copytree(folder, tmp_path / "other")
    change_config(other, rms_norm_eps=1e-3)
    assert Checkpoint.open(other).fingerprint() != first
    change_config(folder, transformers_version="0")
    assert Checkpoint.open(folder).fingerprint() == first


def test_fingerprint_samples_large_tensors(tmp_path, folder):
    change_weights(folder, lambda tensors: tensors.update(big=torch.zeros(300_000)))
    first = Checkpoint.open(folder).fingerprint()
    change_weights(folder, lambda tensors: tensors["big"].fill_(1e-3))
    assert Checkpoint.open(folder).fingerprint() != first
