"""Keys and values that several queries' heads share, in the form that OpenVINO fuses."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino


def fuse_shared_heads(model: "openvino.Model") -> None:
    """Repeat keys and values by bidirectional broadcasts, which OpenVINO 2026.4 fuses.

    Transformers' exporter writes broadcasts of NumPy's kind, to a shape that it selects: with these
    the CPU plugin neither appends to the state in place nor shares heads, and repeats the whole
    state at each token.
    """
    from openvino import opset13 as ops

    for attention in model.get_ordered_ops():
        if attention.get_type_name() != "ScaledDotProductAttention":
            continue
        for operand in (attention.input_value(1), attention.input_value(2)):
            repeated = operand.get_node()
            if repeated.get_type_name() != "Reshape":
                continue
            broadcast = repeated.input_value(0).get_node()
            if broadcast.get_type_name() != "Broadcast":
                continue
            shape = broadcast.input_value(1).get_node()
            if shape.get_type_name() == "Select":
                shared, target = broadcast.input_value(0), shape.input_value(1)
                made = ops.broadcast(shared, target, broadcast_spec="BIDIRECTIONAL")
                broadcast.output(0).replace(made.output(0))
    model.validate_nodes_and_infer_types()
