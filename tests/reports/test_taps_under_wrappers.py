"""H4, danielsyahputra/yolo-distiller#13: under DDP names start with `module.`, and no layer matches."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from limbeck.errors import RequestError
from limbeck.taps import Taps, layers
from limbeck.task import Classification

TASK = Classification(2)
BATCH = {"inputs": torch.randn(3, 4)}


@pytest.fixture
def _alone(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    torch.compiler.reset()


WRAPPERS = {
    "ddp": lambda network: DistributedDataParallel(network),
    "compiled": lambda network: torch.compile(network, backend="aot_eager"),
    "compiled ddp": lambda network: torch.compile(DistributedDataParallel(network), backend="aot_eager"),
    "ddp of compiled": lambda network: DistributedDataParallel(torch.compile(network, backend="aot_eager")),
    "data parallel": lambda network: nn.DataParallel(network),
}


# dynamo looks at the gradient of what enters a compiled part, and silences this in a way that -W error undoes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_users_own_paths_work(wrapper):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    expected = Taps(network, ["1"], task=TASK, trainable=True)(BATCH)["1"].detach()
    model = WRAPPERS[wrapper](network)
    shown = [
        name for name, module in model.named_modules() if module is network[1]
    ]  # as the wrapper calls it
    for path in ("1", *shown):
        tapped = Taps(model, [path], task=TASK, trainable=True)
        assert tapped.dry(BATCH) == {path: (3, 8)}
        for _ in range(2):
            record = tapped(BATCH)
            torch.testing.assert_close(record[path], expected)
            network.zero_grad()
            (record[path].sum() + record.output.sum()).backward()
            assert network[0].weight.grad is not None
        tapped.remove()
    assert [row.path for row in layers(model, BATCH, TASK)] == ["0", "1", "2"]


@pytest.mark.usefixtures("_alone")
def test_no_match_is_an_error():
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)))
    for path in ("model.1", "module.7", "module"):
        with pytest.raises(RequestError, match=f"Sequential has no layer '{path}'"):
            Taps(model, [path], task=TASK, trainable=True)


def test_paths_of_a_wrapped_model_work_on_the_bare_one():
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    assert Taps(network, ["module._orig_mod.1"], task=TASK, trainable=True).dry(BATCH) == {
        "module._orig_mod.1": (3, 2)
    }
