"""An exported model as a graph of aten operators: captured, changed by passes, compiled."""
