"""Artifacts that would run, read or write something when they are loaded: nothing runs, nothing is written."""

import io
import json
import pickle
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from archives import Members, members_of, name_of, written
from torch import Tensor, nn

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact import load_artifact
from pixio_robot.deployment.artifact.exported_program import GOLDEN_FILE, ExportedProgram
from pixio_robot.deployment.artifact.golden import golden_text
from pixio_robot.deployment.artifact.program_text import is_arithmetic


class Runs:
    """Pickled, it is a command that makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return subprocess.call, (["touch", str(self.mark)],)


class Doubled(nn.Module):
    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        state = observation["state"]
        return torch.cat([state, state * 2])[: state.shape[0]]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("honest") / "policy.pt2"
    given = {"state": torch.ones(2, 3)}
    shapes = {"observation": {"state": {0: torch.export.Dim("batch", min=1)}}}
    program = torch.export.export(Doubled(), (given,), dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    golden = golden_text({"state": torch.ones(1, 3)}, torch.ones(1, 3))
    torch.export.save(program, path, extra_files={GOLDEN_FILE: golden})
    return path


def in_program(edit: Callable[[str], str]) -> Callable[[Members, Path], list[tuple[str, bytes]]]:
    """Return an exploit that edits the program's text."""

    def exploit(members: Members, mark: Path) -> list[tuple[str, bytes]]:
        program = name_of(members, "models/model.json")
        text = members[program].decode()
        edited = edit(text).replace("MARK", str(mark))
        assert edited != text
        return [*{**members, program: edited.encode()}.items()]

    return exploit


def expression(code: str) -> Callable[[Members, Path], list[tuple[str, bytes]]]:
    return in_program(lambda text: re.sub(r'"expr_str": ?"[^"]*"', lambda _: f'"expr_str": {json.dumps(code)}', text))


def operator(name: str) -> Callable[[Members, Path], list[tuple[str, bytes]]]:
    return in_program(lambda text: text.replace("torch.ops.aten.mul.Tensor", name))


def saved(value: object) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def first_of_two(members: Members, mark: Path) -> list[tuple[str, bytes]]:
    """Two readers may take different ones of a name."""
    return [(name_of(members, "sample_inputs/model.pt"), saved(Runs(mark))), *members.items()]


def last_of_two(members: Members, mark: Path) -> list[tuple[str, bytes]]:
    return [*members.items(), (name_of(members, "sample_inputs/model.pt"), saved(Runs(mark)))]


def first_of_two_cases(members: Members, mark: Path) -> list[tuple[str, bytes]]:
    """torch looks for members without regard to case."""
    name = name_of(members, "sample_inputs/model.pt")
    return [(name.replace("model.pt", "MODEL.PT"), saved(Runs(mark))), *members.items()]


def pickled_inputs(members: Members, mark: Path) -> list[tuple[str, bytes]]:
    return [*{**members, name_of(members, "sample_inputs/model.pt"): saved(Runs(mark))}.items()]


def pickled_weights(members: Members, mark: Path) -> list[tuple[str, bytes]]:
    config = name_of(members, "model_weights_config.json")
    payload = {"path_name": "weight_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    root = config.partition("/")[0]
    described = json.dumps({"config": {"w": payload}}).encode()
    return [*{**members, config: described, f"{root}/data/weights/weight_0": saved(Runs(mark))}.items()]


def native_code(members: Members, mark: Path) -> list[tuple[str, bytes]]:
    root = next(iter(members)).partition("/")[0]
    return [*members.items(), (f"{root}/data/aotinductor/model/model.so", b"\x7fELF")]


def older_format(members: Members, mark: Path) -> list[tuple[str, bytes]]:
    """Below the archive's folder stands what is known, beside it what torch falls back to."""
    return [*members.items(), ("version", b"8.17"), ("serialized_state_dict.pt", pickle.dumps(Runs(mark)))]


def key_of_inputs(text: str) -> str:
    """A key of the inputs comes to stand in code that torch executes."""
    program = json.loads(text)
    (signature,) = [entry["signature"] for entry in program["graph_module"]["module_call_graph"] if entry["signature"]]
    key = """x", __import__('os').system('touch MARK'), \""""
    signature["in_spec"] = signature["in_spec"].replace(json.dumps(["state"])[1:-1].replace('"', '\\"'), "KEY")
    signature["in_spec"] = signature["in_spec"].replace("KEY", json.dumps(json.dumps(key))[1:-1])
    return json.dumps(program)


EXPLOITS: dict[str, Callable[[Members, Path], list[tuple[str, bytes]]]] = {
    "a member twice, first": first_of_two,
    "a member twice, last": last_of_two,
    "a member twice but for its case": first_of_two_cases,
    "pickled inputs": pickled_inputs,
    "pickled weights": pickled_weights,
    "native code": native_code,
    "the older format": older_format,
    "sympy evaluates": expression("__import__('os').system('touch MARK')"),
    "sympy evaluates in a call": expression("Max(1, open('MARK', 'w'))"),
    "a power that never ends": expression("9**9**9**9"),
    "the system's commands": operator("torch.os.system"),
    "code from a folder": operator("torch.hub.load"),
    "a file as a tensor": operator("torch.ops.aten.from_file.default"),
    "the name of a value is code": in_program(lambda text: text.replace('"mul"', "\"mul = __import__('os')\"")),
    "the key of an input is code": in_program(key_of_inputs),
    "guards are code": in_program(lambda text: text.replace('"guards_code": []', '"guards_code": ["print(\'x\')"]')),
    "guards are code on a size": in_program(
        lambda text: text.replace(
            '"guards_code": []', "\"guards_code\": [\"L['observation']['state'].size()[0] == print('x')\"]"
        )
    ),
    "nested without end": in_program(lambda text: text[:-1] + ', "x": ' + "[" * 50_000 + "]" * 50_000 + "}"),
}


@pytest.mark.parametrize("exploit", EXPLOITS.values(), ids=EXPLOITS.keys())
def test_a_program_that_would_run_something_is_refused(honest: Path, exploit, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = written(tmp_path / "evil.pt2", exploit(members_of(honest), mark))
    with pytest.raises(UserError, match=re.escape(str(path))):
        ExportedProgram(path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_an_honest_program_is_loaded(honest: Path, tmp_path: Path) -> None:
    copy = written(tmp_path / "copy.pt2", [*members_of(honest).items()])
    for path in (honest, copy):
        torch.testing.assert_close(ExportedProgram(path)({"state": torch.ones(5, 3)}), torch.ones(5, 3))


def test_two_lists_of_members_are_refused(honest: Path, tmp_path: Path) -> None:
    """Python takes what stands before an archive off its places, torch does not."""
    path = tmp_path / "two.pt2"
    path.write_bytes(honest.read_bytes() + honest.read_bytes())
    with pytest.raises(UserError, match="is no .pt2 file"):
        ExportedProgram(path)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("Symbol('s61', positive=True, integer=True)", True),
        ("s0*s1//16 + 1", True),
        ("Max(1, s0 - 2) <= 5", True),
        ("(u0 + 1)**2", True),
        ("FloorDiv(s0, 2)", True),
        ("x", False),
        ("s0.is_integer", False),
        ("s0[0]", False),
        ("lambda: 1", False),
        ("[s0 for s0 in s1]", False),
        ("print(s0)", False),
        ("Symbol('__import__')", False),
        ("Add(Mul(Integer(2), Symbol('s0')), Integer(-1))", True),
        ("Pow(Symbol('s0'), Integer(2))", True),
        ("Pow(Pow(Integer(9), Integer(8)), Integer(8))", False),
        ("10**100", False),
        ("LShift(1, 99999999999)", False),
        ("((s0**8)**8)**8", False),
        ("'s0'", False),
        ("(" * 400 + "s0" + ")" * 400, False),
        ("s0" + " + s0" * 1000, False),
    ],
)
def test_expressions(text: str, taken: bool) -> None:
    assert is_arithmetic(text) is taken


def test_an_onnx_file_reads_no_other(tmp_path: Path) -> None:
    import onnx

    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(16)))
    elsewhere = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4])
    elsewhere.data_location = onnx.TensorProto.EXTERNAL
    elsewhere.external_data.add(key="location", value="secret")
    inside = onnx.helper.make_node("Constant", [], ["output"], value=elsewhere)
    output = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [4])
    for nodes, weights in (
        ([onnx.helper.make_node("Identity", ["w"], ["output"])], [elsewhere]),
        ([inside], []),
    ):
        model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [output], weights))
        onnx.helper.set_model_props(model, {"pixio_robot.metadata": "{}"})
        path = tmp_path / "policy.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(UserError, match="some of its tensors lie in other files"):
            load_artifact(path)
