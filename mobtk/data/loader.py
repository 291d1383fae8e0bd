"""Trajectories for a training loop of one's own: a stream for torch's DataLoader."""

from collections.abc import Iterator

import numpy as np
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from mobtk.data.trajectories import Trajectories, Trajectory
from mobtk.errors import BadInput
from mobtk.storage import PathLike


class TrajectoryStream(IterableDataset[list[Trajectory]]):
    """Batches of trajectories, each trajectory once in a pass, however many workers and ranks share it.

    Give it to ``DataLoader(stream, batch_size=None, num_workers=2)``. A few row groups are in memory at a time, in each
    worker. The order follows from seed and epoch alone: batches come in one order for any number of workers, ranks take them
    in turn (and some may get one more than others), and a pass goes on exactly where it was by ``begin(epoch, done)``, which
    workers that persist from pass to pass do not hear of. ``mobtk train`` reads the same rows in the same way by itself.

    Args:
        path: folder of trajectories.
        split: whose.
        batch: trajectories of a batch; the last one may be smaller.
        seed: of the order.
    """

    def __init__(self, path: PathLike, split: str = "train", *, batch: int = 64, seed: int = 0) -> None:
        super().__init__()
        if batch < 1:
            raise BadInput(f"a batch has a trajectory at least, not {batch}")
        self.data = Trajectories(path)
        self.rows = self.data.rows(split)
        self.batch, self.seed = batch, seed
        self.epoch = self.done = 0

    def begin(self, epoch: int, done: int = 0) -> None:
        """The pass that the next iteration makes, after so many batches that this rank has seen of it."""
        self.epoch, self.done = epoch, done

    def __iter__(self) -> Iterator[list[Trajectory]]:
        order = self.data.mixed(self.rows, np.random.default_rng([self.seed, self.epoch]))
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        batches = range(rank + ranks * (self.done + number), -(-len(order) // self.batch), ranks * workers)
        for b in batches:
            yield [self.data[int(row)] for row in order[b * self.batch : (b + 1) * self.batch]]
