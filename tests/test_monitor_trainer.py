"""The monitor inside transformers' Trainer, on least squares, where everything is known."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import vantage as vt
from vantage.monitor import TrainerCallback
from vantage.monitor.groups import shuffled_groups

transformers = pytest.importorskip("transformers")
SIGMA, TILT = 0.5, torch.tensor([0.3, -0.2, 0.1])


class LeastSquares(nn.Module):
    """½ (w·x − y)², whose gradient at w = 0 is −y x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x, y):
        return {"loss": 0.5 * (x @ self.w - y).square().mean()}


def rows(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator)
    y = x @ TILT + SIGMA * torch.randn(count, generator=generator)
    return [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]


def trained(tmp_path, data, *, steps=-1, passes=2, rows=8, **settings):
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=steps,
        num_train_epochs=1,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=passes,
        learning_rate=0.0,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **({"logging_strategy": "no"} | settings),
    )
    trainer = transformers.Trainer(LeastSquares(), arguments, train_dataset=data)
    callback = TrainerCallback(trainer, window=1000)
    trainer.add_callback(callback)
    trainer.train()
    return trainer, callback


def test_signal_and_noise_of_least_squares_are_measured(tmp_path, capsys):
    """‖G‖² = ‖t‖² and tr Cov(y x) = ‖t‖² (d + 1) + 3 σ² for x ~ N(0, 1), within four errors."""
    _, callback = trained(tmp_path, rows(16 * 300), max_grad_norm=1e-3)
    norm = float(TILT @ TILT)
    trace = 4 * norm + 3 * SIGMA**2
    found = np.array(callback.monitor.latest)[:, :2]
    error = found.std(0) / len(found) ** 0.5
    assert len(found) == 300
    assert (np.abs(found.mean(0) - [norm, trace / 16]) < 4 * error).all()
    assert (error < 0.1 * found.mean(0)).all()
    row = callback.rows()
    assert row["gradient/snr_low"] < norm / trace * 16 < row["gradient/snr_high"]
    assert row["gradient/noise_scale_low"] < trace / norm < row["gradient/noise_scale_high"]
    assert "a step is 2 passes" in capsys.readouterr().err


def test_it_is_in_the_log(tmp_path):
    settings = {"logging_strategy": "steps", "logging_steps": 50, "logging_first_step": True}
    trainer, _ = trained(tmp_path, rows(16 * 50), **settings)
    first, later = trainer.state.log_history[:2]
    assert "gradient/snr_low" not in first
    assert {"loss", "gradient/snr", "gradient/snr_low", "gradient/snr_high"} <= later.keys()


@pytest.mark.parametrize(("count", "measured"), [(160, 10), (152, 9), (155, 9), (163, 10)])
def test_steps_that_are_not_whole_are_left_out(tmp_path, count, measured):
    """At the end of an epoch: a pass too few, or a pass that is short of rows."""
    _, callback = trained(tmp_path, rows(count))
    assert len(callback.monitor.latest) == measured


def test_training_twice_begins_anew_and_leaves_no_hooks(tmp_path):
    trainer, callback = trained(tmp_path, rows(64))
    first = callback.monitor
    trainer.train()
    assert callback.monitor is not first
    assert len(callback.monitor.latest) == 4
    assert not trainer.model.w._backward_hooks
    assert not trainer.model.w._post_accumulate_grad_hooks


def test_one_pass_is_said_with_how_to_split(tmp_path):
    with pytest.warns(UserWarning, match="Raise gradient_accumulation_steps"):
        trainer, callback = trained(tmp_path, rows(64), passes=1)
    assert callback.rows() == {}
    assert trainer.state.global_step == 8


def test_refused_at_the_door(tmp_path):
    with pytest.raises(vt.InputError, match="Trainer of transformers"):
        TrainerCallback(object())
    trainer, _ = trained(tmp_path, rows(32))
    with pytest.raises(vt.InputError, match="window=3"):
        TrainerCallback(trainer, window=3)
    sharded = SimpleNamespace(
        callback_handler=None, accelerator=None, args=SimpleNamespace(deepspeed="zero3.json")
    )
    with pytest.raises(vt.InputError, match="deepspeed shards"):
        TrainerCallback(sharded)


def test_groups_move_whole_in_the_order_of_a_permutation_of_all_rows():
    columns = {"a": torch.arange(12), "b": list("abcdefghijkl"), "c": None, "d": torch.tensor(7)}
    torch.manual_seed(0)
    found = shuffled_groups(columns, size=3)
    after = torch.rand(1)
    torch.manual_seed(0)
    met = torch.randperm(12) // 3
    assert torch.equal(after, torch.rand(1))  # what is drawn next is the same
    groups = found["a"].view(4, 3)
    assert torch.equal(groups, groups[:, :1] + torch.arange(3))
    assert (groups[:, 0] // 3).tolist() == list(dict.fromkeys(met.tolist()))
    assert found["b"] == [columns["b"][n] for n in found["a"].tolist()]
    assert (found["c"], found["d"]) == (None, columns["d"])


# Ranks.


LOGGED = {"logging_strategy": "steps", "logging_steps": 6, "max_grad_norm": 1e-3, "seed": 3}


def train_of_rank(rank, folder, data):
    """Two passes of four rows on each of two ranks, under DistributedDataParallel with gloo."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # asked for, not used
    torch.set_num_threads(1)
    address = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    trainer, callback = trained(folder / "run", data, rows=4, ddp_backend="gloo", **LOGGED)
    assert type(trainer.model_wrapped).__name__ == "DistributedDataParallel"
    found = (list(callback.monitor.latest), callback.rows(), trainer.state.log_history)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_log_what_one_process_with_all_passes_does(tmp_path):
    data = rows(16 * 12)
    torch.multiprocessing.spawn(train_of_rank, (tmp_path, data), nprocs=2, join=True)
    # the same batches: those of a step go to the ranks in turn, or to one process's four passes
    trainer, callback = trained(tmp_path / "alone", data, passes=4, rows=4, **LOGGED)
    alone = np.array(callback.monitor.latest)
    assert len(alone) == 12
    for rank in range(2):
        latest, last, history = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        np.testing.assert_allclose(np.array(latest), alone, rtol=1e-4)
        assert last == pytest.approx(callback.rows(), rel=1e-4)
        if rank == 0:
            shown = [row for row in history if "loss" in row]
            expected = [row for row in trainer.state.log_history if "loss" in row]
            assert len(shown) == len(expected) == 2
            for ours, theirs in zip(shown, expected, strict=True):
                names = {name for name in theirs if name.startswith("gradient/")}
                assert "gradient/batch_for_snr_1" in names
                assert names == {name for name in ours if name.startswith("gradient/")}
                assert [ours[name] for name in sorted(names)] == pytest.approx(
                    [theirs[name] for name in sorted(names)], rel=1e-4
                )
