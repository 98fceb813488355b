"""An exported model as a graph of aten operators: captured, cleaned up, compiled."""
