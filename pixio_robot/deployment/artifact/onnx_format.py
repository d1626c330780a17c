"""Artifacts as ONNX files, run by onnxruntime; the one module that knows either.

Metadata and golden pair are among the model's `metadata_props`; inputs are named by the observation's keys, the output
is `output`.
"""

import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.golden import GoldenArtifact
from pixio_robot.deployment.artifact.metadata import no_artifact, sealed

_METADATA, _GOLDEN = "pixio_robot.metadata", "pixio_robot.golden"
_MOST_BYTES = 2**31 - 1
_ERRORS = 3  # onnxruntime's number of that level
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxArtifact(GoldenArtifact):
    """An ONNX file; its answers lie on the CPU."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Load the file, whether or not it has metadata.

        Raises:
            UserError: onnxruntime is missing, or cannot run on the device.
        """
        require_onnx()
        import onnxruntime

        provider = _PROVIDERS.get(torch.device(device).type, "")
        if provider not in onnxruntime.get_available_providers():
            raise UserError(f"This onnxruntime does not run on {device}: install onnxruntime-gpu, or use device=cpu.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = _ERRORS  # it warns of every constant that it cannot fold
        self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        super().__init__(self._session.get_modelmeta().custom_metadata_map[_GOLDEN])

    def _run(self, observation: dict[str, Tensor]) -> Tensor:
        (output,) = self._session.run(["output"], {key: value.cpu().numpy() for key, value in observation.items()})
        return torch.from_numpy(output)


def require_onnx() -> None:
    """Check that the packages are here.

    Raises:
        UserError: One is missing.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX files need {', '.join(missing)}: pip install 'pixio-robot[onnx]'.")


def write_onnx(path: Path, program: torch.export.ExportedProgram, inputs: Sequence[str], golden: str) -> None:
    """Write a program as one ONNX file.

    Raises:
        UserError: It is too large for one file.
    """
    import onnx

    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it warns of every operator that it cannot fold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(
            program, dynamo=True, optimize=False, input_names=list(inputs), output_names=["output"], verbose=False
        )
    assert converted is not None
    model = converted.model_proto
    if model.ByteSize() > _MOST_BYTES:
        raise UserError("The encoder is too large for one ONNX file (2 GiB): use format=torchscript or pt2.")
    onnx.helper.set_model_props(model, {_GOLDEN: golden})
    path.write_bytes(model.SerializeToString())


def seal_onnx(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Add metadata to a file of `write_onnx`, with the digest of both; returns them."""
    import onnx

    model = onnx.load(path)
    described = sealed(metadata, _contents_hash(model))
    model.metadata_props.add(key=_METADATA, value=json.dumps(described, ensure_ascii=False))
    path.write_bytes(model.SerializeToString())
    return described


def read_onnx(path: Path) -> tuple[object, str]:
    """Return what a file says of itself, unchecked, and the hash of everything else in it.

    Raises:
        UserError: It is no artifact, some of it lies in other files, or a package is missing.
    """
    require_onnx()
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
        (described,) = [json.loads(entry.value) for entry in model.metadata_props if entry.key == _METADATA]
    except (OSError, ValueError, RecursionError, DecodeError) as error:
        raise no_artifact(path) from error
    if _refers_to_files(model):
        raise UserError(f"{path} was not loaded: some of its tensors lie in other files; an artifact is one file.")
    return described, _contents_hash(model)


def _refers_to_files(message: Any) -> bool:  # noqa: ANN401
    """Tell whether a tensor, wherever it is in a model, lies in another file, which onnxruntime would read."""
    if message.DESCRIPTOR.name == "TensorProto" and (message.external_data or message.data_location):
        return True
    return any(
        _refers_to_files(inner)
        for field, value in message.ListFields()
        if field.message_type is not None
        for inner in (value if field.is_repeated else [value])
    )


def _contents_hash(model: Any) -> str:  # noqa: ANN401 (onnx's generated classes)
    """Hash a model without its metadata."""
    bare = type(model)()
    bare.CopyFrom(model)
    kept = [entry for entry in bare.metadata_props if entry.key != _METADATA]
    del bare.metadata_props[:]
    bare.metadata_props.extend(sorted(kept, key=lambda entry: entry.key))
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
