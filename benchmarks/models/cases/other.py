"""Image and text towers, graphs, volumes, and a trainer that predicts."""

from typing import Any

import torch

from cases.case import Case
from cases.vision import images


def _open_clip() -> torch.nn.Module:
    import open_clip

    return open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
        text_cfg={"context_length": 12, "vocab_size": 300, "width": 64, "heads": 4, "layers": 2},
    ).eval()


def _texts(rows: int) -> torch.Tensor:
    ids = torch.randint(1, 299, (rows, 12))
    ids[:, 9] = 299  # the end of a text has the highest id
    return ids


def _both(model: Any, rows: int) -> object:
    with torch.no_grad():
        return model(images(rows, 32, 32), _texts(rows))


def _encode(model: Any, rows: int) -> object:
    with torch.no_grad():
        return model.encode_image(images(rows, 32, 32)), model.encode_text(_texts(rows))


def _gcn() -> torch.nn.Module:
    from torch_geometric.nn.models import GCN

    return GCN(in_channels=8, hidden_channels=16, num_layers=2, out_channels=4).eval()


def _gat() -> torch.nn.Module:
    from torch_geometric.nn.models import GAT

    return GAT(in_channels=8, hidden_channels=16, num_layers=2, out_channels=4, heads=2).eval()


def _gin() -> torch.nn.Module:
    from torch_geometric.nn import GIN, global_add_pool

    class GraphClassifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = GIN(in_channels=8, hidden_channels=16, num_layers=2, out_channels=4)

        def forward(
            self, x: torch.Tensor, edge_index: torch.Tensor, batch: torch.Tensor
        ) -> torch.Tensor:
            return global_add_pool(self.body(x, edge_index), batch)

    return GraphClassifier().eval()


def _graph(nodes: int, edges: int, loops: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.randint(nodes, (edges,))
    offset = torch.randint(0 if loops else 1, nodes, (edges,))
    return torch.randn(nodes, 8), torch.stack([source, (source + offset) % nodes])


def _nodes(model: Any, nodes: int, edges: int, loops: bool = False) -> object:
    with torch.no_grad():
        return model(*_graph(nodes, edges, loops))


def _graphs(model: Any, graphs: int, nodes: int) -> object:
    x, edges = _graph(graphs * nodes, 30)
    with torch.no_grad():
        return model(x, edges, torch.arange(graphs).repeat_interleave(nodes))


GRAPHS = [
    lambda model: _nodes(model, 10, 30),
    lambda model: _nodes(model, 7, 30),
    lambda model: _nodes(model, 10, 41),
    lambda model: _nodes(model, 12, 25, True),
    lambda model: _nodes(model, 1, 3, True),
]


def _lightning() -> torch.nn.Module:
    import lightning

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(
                torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)  # type: ignore[no-any-return]

        def predict_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return self(batch).softmax(-1)  # type: ignore[no-any-return]

    return Classifier().eval()


def _predict(model: Any, rows: int) -> object:
    import lightning

    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    return trainer.predict(model, torch.utils.data.DataLoader(torch.randn(rows, 8), batch_size=4))


def _unet(dimensions: int) -> torch.nn.Module:
    from monai.networks.nets import UNet

    return UNet(dimensions, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=1).eval()


def _slide(model: Any, *size: int) -> object:
    from monai.inferers import sliding_window_inference

    with torch.no_grad():
        return sliding_window_inference(
            torch.randn(1, 1, *size), roi_size=(16,) * len(size), sw_batch_size=2, predictor=model
        )


CASES = [
    Case(
        "open_clip_torch",
        "CLIP, forward",
        _open_clip,
        [lambda model: _both(model, 2), lambda model: _both(model, 1), lambda m: _both(m, 3)],
    ),
    Case(
        "open_clip_torch",
        "CLIP, encode_image and encode_text",
        _open_clip,
        [lambda model: _encode(model, 2), lambda model: _encode(model, 1)],
    ),
    Case("torch_geometric", "GCN", _gcn, GRAPHS),
    Case("torch_geometric", "GAT", _gat, GRAPHS),
    Case(
        "torch_geometric",
        "GIN with pooling",
        _gin,
        [
            lambda model: _graphs(model, 3, 5),
            lambda model: _graphs(model, 2, 5),
            lambda model: _graphs(model, 4, 6),
        ],
    ),
    Case(
        "lightning",
        "LightningModule, trainer.predict",
        _lightning,
        [lambda model: _predict(model, 8), lambda model: _predict(model, 5)],
    ),
    Case(
        "monai",
        "UNet in 2D, sliding window",
        lambda: _unet(2),
        [lambda model: _slide(model, 32, 32), lambda model: _slide(model, 16, 24)],
    ),
    Case(
        "monai",
        "UNet in 3D, sliding window",
        lambda: _unet(3),
        [lambda model: _slide(model, 32, 16, 16), lambda model: _slide(model, 16, 24, 16)],
    ),
]
