"""ONNX files: answers, declarations, fixed sizes, refusals, and what decides their fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libraries
import numpy as np
import pytest
import torch

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models import onnx_file
from saccade.pipeline.models.base import AS_LOADED, ModelForm, ModelSpec, PassModel, Views
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.loading import fingerprint, load_model
from saccade.pipeline.models.onnx_file import external_files, sessions_in
from saccade.pipeline.models.wrap import TorchModel
from saccade.pipeline.recipe import ModelRecipe

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

EXAMPLE = Path(__file__).parents[2] / "examples" / "methods" / "edges.onnx"


def load(path: Path, device: str = "cpu", **fields: Any) -> PassModel:
    recipe = ModelRecipe(source=path.name, **fields)
    return load_model(recipe, base_folder=path.parent, device=device)


def told(model: Any, path: Path, **fields: Any) -> PassModel:
    return load(libraries.save(model, path), **fields)


def test_a_graph_answers_as_the_same_convolution_in_torch_at_any_size(tmp_path: Path) -> None:
    made, weights = libraries.convolution_graph()
    model = told(made, tmp_path / "m.onnx", activation="sigmoid", classes=["a", "b"])
    for shape in ((1, 3, 31, 47), (3, 3, 64, 29)):
        pixels = torch.rand(shape)
        expected = torch.nn.functional.conv2d(pixels, torch.from_numpy(weights), padding=2)
        torch.testing.assert_close(model(Views(pixels)).scores, expected.sigmoid())


def test_what_a_file_leaves_unsaid_is_measured(tmp_path: Path) -> None:
    made, _ = libraries.convolution_graph(classes=3)
    spec = told(made, tmp_path / "m.onnx", activation="softmax").spec
    assert spec == ModelSpec(("0", "1", "2"), halo_px=2, activation="softmax")


def test_the_metadata_declares_and_the_recipe_overrides(tmp_path: Path) -> None:
    declared = {"classes": ["a", "b"], "activation": "softmax", "halo_px": 7, "mean": [0.5]}
    made, _ = libraries.convolution_graph(declared=declared)
    spec = told(made, tmp_path / "m.onnx", halo=5, classes=["c", "d"]).spec
    assert spec == ModelSpec(("c", "d"), halo_px=5, activation="softmax", mean=(0.5,))


@pytest.mark.parametrize("text", ["[1]", "{", '{"class": ["a"]}'])
def test_metadata_that_declares_nothing_known_is_refused(tmp_path: Path, text: str) -> None:
    made, _ = libraries.convolution_graph()
    onnx.helper.set_model_props(made, {"saccade": text})
    with pytest.raises(ModelContract, match="saccade"):
        told(made, tmp_path / "m.onnx")


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_a_graph_of_one_size_answers_larger_windows_cell_by_cell(
    tmp_path: Path, batch: int | str
) -> None:
    fixed, weights = libraries.convolution_graph(shape=(batch, 3, 32, 32))
    model = told(fixed, tmp_path / "fixed.onnx", activation="sigmoid", classes=["a", "b"])
    assert (model.spec.multiple, model.spec.halo_px, model.spec.local) == (32, 0, True)
    pixels = torch.rand(3, 3, 64, 96)
    cell = pixels[..., 32:, 64:]
    expected = torch.nn.functional.conv2d(cell, torch.from_numpy(weights), padding=2).sigmoid()
    torch.testing.assert_close(model(Views(pixels)).scores[..., 32:, 64:], expected)


def test_a_graph_of_one_batch_and_any_size_is_given_windows_one_by_one(tmp_path: Path) -> None:
    made, _ = libraries.convolution_graph(shape=(1, 3, "h", "w"))
    free, _ = libraries.convolution_graph()
    one = told(made, tmp_path / "one.onnx", activation="sigmoid")
    any_batch = told(free, tmp_path / "any.onnx", activation="sigmoid")
    views = Views(torch.rand(5, 3, 17, 23))
    torch.testing.assert_close(one(views).scores, any_batch(views).scores)


def test_a_classifier_of_one_size_is_a_tile_classifier_of_that_size(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["scores"]),
    ]
    made = libraries.graph(nodes, {}, shape=("n", 3, 16, 16), answer=("n", 3))
    model = told(made, tmp_path / "m.onnx")
    assert (model.spec.stride, model.spec.multiple) == (16, 16)
    pixels = torch.rand(2, 3, 32, 48)
    expected = torch.nn.functional.avg_pool2d(pixels, 16)
    torch.testing.assert_close(model(Views(pixels)).scores, expected)


def test_guidance_goes_to_the_input_of_that_name(tmp_path: Path) -> None:
    made = libraries.graph(
        [onnx.helper.make_node("Identity", ["guidance"], ["scores"])],
        {},
        inputs={"guidance": ("n", 2, "h", "w")},
        declared={"classes": ["a", "b"], "guidance": True, "halo_px": 0, "multiple": 1},
    )
    model = told(made, tmp_path / "m.onnx")
    guidance = torch.rand(1, 2, 13, 17)
    assert torch.equal(model(Views(torch.rand(1, 3, 13, 17), guidance=guidance)).scores, guidance)


def test_half_precision_graphs_are_given_half_precision(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["scores"])
    made = libraries.graph([node], {}, kind=onnx.TensorProto.FLOAT16)
    pixels = torch.rand(1, 3, 7, 11)
    answer = told(made, tmp_path / "m.onnx")(Views(pixels)).scores
    torch.testing.assert_close(answer, pixels.half().float())


@pytest.mark.parametrize(
    ("shape", "more", "message"),
    [
        (("n", "h", "w", 3), {}, "channels first"),
        (("n", 3), {}, r"\(batch, channels, height, width\) expected"),
        (("n", 3, 32, 48), {}, "fixed and equal"),
        (("n", 3, 32, "w"), {}, "dynamic axes"),
        (("n", 3, "h", "w"), {"kind": 2}, "inputs of tensor"),
        (("n", 3, "h", "w"), {"inputs": {"mask": ("n", 1, "h", "w")}}, r"found \['mask'\]"),
        (("n", 3, 32, 32), {"inputs": {"guidance": ("n", 1, 32, 32)}}, "any batch, height"),
    ],
)
def test_inputs_that_pixels_do_not_fit_are_refused(
    tmp_path: Path, shape: tuple[Any, ...], more: dict[str, Any], message: str
) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["scores"])
    made = libraries.graph([node], {}, shape=shape, **more)
    with pytest.raises(ModelContract, match=message):
        told(made, tmp_path / "m.onnx")


def test_a_file_that_is_no_graph_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelContract, match="does not load"):
        load(tmp_path / "m.onnx")
    with pytest.raises(ModelNotFound, match=r"none\.onnx; found none"):
        load(tmp_path / "none.onnx")
    with pytest.raises(ModelContract, match="brings its own"):
        load(tmp_path / "m.onnx", weights="w.safetensors")


def test_a_missing_runtime_is_said_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ModelNotFound, match=r"pip install 'saccade\[onnx\]'"):
        load(EXAMPLE)


def test_a_device_that_the_runtime_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelContract, match=r"onnxruntime-gpu|CUDA"):
        onnx_file._providers(pytest.importorskip("onnxruntime"), EXAMPLE, "cuda:1")


# ------------------------------------------------------------------------------- form and threads


def test_a_graph_has_one_form_and_says_so() -> None:
    model = load(EXAMPLE)
    assert in_form(model, AS_LOADED) is model
    for form in (ModelForm("bfloat16"), ModelForm(channels_last=True), ModelForm(fused=True)):
        with pytest.raises(ModelContract, match="ONNX model computes"):
            in_form(model, form)


def test_a_graph_computes_on_as_many_threads_as_torch() -> None:
    model = load(EXAMPLE)
    (session,) = sessions_in(model)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert session.session().get_session_options().intra_op_num_threads == threads
    finally:
        torch.set_num_threads(before)


def test_sessions_are_found_under_declarations_and_cells_and_nowhere_else(tmp_path: Path) -> None:
    made, _ = libraries.convolution_graph(shape=("n", 3, 32, 32))
    model = told(made, tmp_path / "m.onnx", activation="sigmoid")
    assert len(sessions_in(model)) == 1
    assert sessions_in(TorchModel(torch.nn.Conv2d(3, 2, 1), ModelSpec(("a", "b")))) == ()


def test_a_failure_to_allocate_is_told_as_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    (session,) = sessions_in(load(EXAMPLE))

    class Full:
        def run(self, *_: object) -> None:
            raise Exception("[ONNXRuntimeError] : Failed to allocate memory for buffer")

    monkeypatch.setattr(session, "session", Full)
    with pytest.raises(MemoryError):
        session(torch.rand(1, 3, 7, 7))


# ------------------------------------------------------------------------------------ fingerprint


def test_the_fingerprint_follows_weights_in_the_file_and_beside_it(tmp_path: Path) -> None:
    found = set()
    for seed in (1, 2):
        for beside in (False, True):
            made, _ = libraries.convolution_graph(seed=seed)
            folder = tmp_path / f"{seed}-{beside}"
            folder.mkdir()
            path = libraries.save(made, folder / "m.onnx", beside=beside)
            found.add(fingerprint(ModelRecipe(source="m.onnx"), path.parent))
    assert len(found) == 4


def test_weights_beside_a_file_are_found_and_load(tmp_path: Path) -> None:
    made, _ = libraries.convolution_graph()
    path = libraries.save(made, tmp_path / "m.onnx", beside=True)
    assert external_files(path) == [tmp_path / "m.onnx.data"]
    assert load(path, activation="sigmoid").spec.halo_px == 2
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelNotFound, match=r"m\.onnx\.data"):
        load(path)


def test_weights_outside_the_file_s_folder_are_refused(tmp_path: Path) -> None:
    made, _ = libraries.convolution_graph()
    path = libraries.save(made, tmp_path / "m.onnx", beside=True)
    content = path.read_bytes().replace(b"m.onnx.data", b"../../x.dat")
    path.write_bytes(content)
    with pytest.raises(ModelContract, match=r"\.\./\.\./x\.dat"):
        load(path)


# -------------------------------------------------------------------------------------- example


def test_the_example_s_graph_is_the_one_described_here(tmp_path: Path) -> None:
    libraries.save(libraries.edges_graph(), tmp_path / "edges.onnx")
    assert (tmp_path / "edges.onnx").read_bytes() == EXAMPLE.read_bytes()


def test_the_example_s_graph_measures_the_gradient_of_grey_values() -> None:
    model = load(EXAMPLE)
    assert model.spec == ModelSpec(("edge",), halo_px=1)
    ramp = np.linspace(0, 1, 21, dtype=np.float32)
    pixels = torch.from_numpy(np.broadcast_to(ramp, (1, 3, 15, 21)).copy())
    inside = model(Views(pixels)).scores[..., 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 2 * 0.05), atol=1e-6, rtol=0)
