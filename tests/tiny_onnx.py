"""Tiny networks in ONNX: what is redder than green stands out, as real salient-object segmenters take and return it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RED = (60.0, -60.0, 0.0)  # of red, green and blue: steep, so that a share is 0 or 1 but for red's edges
Shape = Sequence[int | str]


def salient(
    path: Path,
    side: int | str = 64,
    weights: Sequence[float] = RED,
    bias: float = -3.0,
    kind: int = TensorProto.FLOAT,
    logits: bool = False,
) -> Path:
    """A segmenter: a 1x1 convolution, and a sigmoid unless it returns logits; its second output is another map."""
    shape: Shape = (1, 3, side, side)
    last = "map" if logits else "mask"
    nodes = [helper.make_node("Conv", ["picture", "weights", "bias"], ["map"])]
    if not logits:
        nodes.append(helper.make_node("Sigmoid", ["map"], ["mask"]))
    return _save(path, nodes, shape, (last, "map") if not logits else (last,), weights, bias, kind)


def classifier(path: Path) -> Path:
    """A network that takes a picture and returns one number."""
    nodes = [
        helper.make_node("Conv", ["picture", "weights", "bias"], ["map"]),
        helper.make_node("ReduceMean", ["map"], ["mean"], keepdims=0),
    ]
    return _save(path, nodes, (1, 3, 64, 64), ("mean",), RED, 0.0, TensorProto.FLOAT)


def _save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    shape: Shape,
    outputs: Sequence[str],
    weights: Sequence[float],
    bias: float,
    kind: int,
) -> Path:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {"weights": np.array(weights).reshape(1, 3, 1, 1), "bias": np.array([bias])}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("picture", kind, shape)],
        [helper.make_tensor_value_info(name, kind, [] if name == "mean" else (1, 1, *shape[2:])) for name in outputs],
        [numpy_helper.from_array(value.astype(dtype), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9  # that of opset 17, not of the onnx that wrote it
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
