"""How well the judges of `mini` recognise held-out objects and reject corrupted copies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from pipelines.mini.corruptions import KINDS
from pipelines.mini.judge_batches import Sample, artwork_of, corrupted_copy, designs_of, mirror_half
from pipelines.mini.judge_networks import LenientParams, StrictParams, ViewParams
from pipelines.mini.judge_photos import Pixels, photographed, to_uint8
from pipelines.mini.metrics import share_with_interval
from taming_core.evaluation import statistics
from taming_core.evaluation.judges import SIDE, ImageJudge, image_features, load_judge, pose_images
from taming_core.evaluation.judges import composite_on_grey as on_grey_ground
from taming_core.seeds import seed_for
from taming_core.world.artwork import SPLITS, Pictures, World
from taming_core.world.plan import Chances, generator, plan_of
from taming_core.world.render import composite_on_grey, draw, references

BATCH = 64  # photos rendered at once
HELD_OUT = SPLITS[1:]


class FalsePairs(NamedTuple):
    """Pairs of a reference and a photo of something else."""

    cosines: NDArray[np.float32]  # (m,)
    objects: NDArray[np.int64]  # (m,) cut-outs of the references


@dataclass(frozen=True)
class Trial:
    """The strict judge and the objects that it is measured on."""

    judge: ImageJudge
    world: World
    pictures: Pictures
    p: StrictParams
    rng: Generator
    cutouts: NDArray[np.int64]  # (n,)

    def render(self, samples: Sequence[Sample], view: ViewParams) -> tuple[list[Image.Image], NDArray[np.bool_]]:
        """A cut-out (RGBA) of each sample, half of them mirrored, and whether it differs visibly from the object."""
        art, visible = artwork_of(self.pictures, samples, self.rng)
        chunks = mirror_half(art, self.rng).split(BATCH)
        views = [photographed(self.world, self.pictures, chunk, view, self.rng) for chunk in chunks]
        pixels = to_uint8(torch.cat(views)).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(image) for image in pixels], visible.cpu().numpy()

    def originals(self) -> list[Sample]:
        """The objects themselves."""
        return [Sample(int(i), int(i), "", None) for i in self.cutouts]

    def references(self) -> NDArray[np.float32]:
        """Features (n, poses, e) of a reference view of each object, as in `taming eval`."""
        images, _ = self.render(self.originals(), self.p.eval_views[0])
        return np.stack([self.judge(pose_images(image)) for image in images])

    def photos(self, samples: Sequence[Sample]) -> tuple[statistics.Features, NDArray[np.bool_]]:
        """Features (n, e) of a photo of each sample, and whether it differs visibly from the object."""
        images, visible = self.render(samples, self.p.eval_views[1])
        return self.judge([on_grey_ground(image) for image in images]), visible

    def corrupted(self, references: NDArray[np.float32], kind: str) -> FalsePairs:
        """Each reference with a corrupted copy of its object, where the corruption is visible."""
        designs = designs_of(self.world, range(len(self.world.cutouts)))
        samples = [corrupted_copy(self.world, designs, int(i), kind, None, self.rng, self.p) for i in self.cutouts]
        photos, visible = self.photos(samples)
        return FalsePairs(pair_cosines(references, photos)[visible], self.cutouts[visible])


def measure_strict(folder: Path, world: World, pictures: Pictures, p: StrictParams) -> dict[str, float]:
    """Set the threshold in the judge's config from trained objects, and measure on held-out ones."""
    judge, rng = load_judge(str(folder), "cpu"), generator(p.seed, "measure strict_judge", 0)
    trained, unseen = (
        Trial(judge, world, pictures, p, rng, np.array(subset(cutouts, p.eval_objects, p.seed)))
        for cutouts in (world.of_split("train"), held_out(world))
    )
    true = pair_cosines(trained.references(), trained.photos(trained.originals())[0])
    threshold = round(float(np.quantile(true, 1 - p.true_accept_rate)), 4)
    judge.model.config.accepted_from = threshold
    judge.model.config.save_pretrained(folder)
    return {"things": len(unseen.cutouts), "accepted_from": threshold, **verification(unseen, threshold)}


def verification(trial: Trial, threshold: float) -> dict[str, float]:
    """Retrieval accuracy, shares of true pairs accepted and of false ones rejected, and areas under the ROC curve."""
    references, (photos, _) = trial.references(), trial.photos(trial.originals())
    cosines = statistics.best_pose_cosines(photos, references)
    true, off_diagonal = np.diagonal(cosines), ~np.eye(len(cosines), dtype=bool)
    ranks = statistics.ranks_from_cosines(cosines, np.arange(len(cosines)))
    metrics = share_with_interval("top1", ranks == 0, trial.cutouts)
    metrics |= share_with_interval("accepted", true >= threshold, trial.cutouts)
    false = {kind: trial.corrupted(references, kind) for kind in KINDS}
    others = FalsePairs(cosines.T[off_diagonal], np.repeat(trial.cutouts, len(cosines) - 1))
    for kind, pairs in {**false, "other_things": others}.items():
        metrics |= share_with_interval(f"rejected_{kind}", pairs.cosines < threshold, pairs.objects)
        metrics[f"auc_{kind}"] = roc_auc(true, pairs.cosines)
    return metrics


def measure_lenient(folder: Path, world: World, pictures: Pictures, p: LenientParams) -> dict[str, float]:
    """Retrieval accuracy among all held-out objects."""
    cutouts = held_out(world)
    judge = load_judge(str(folder), "cpu")
    photos, subjects = whole_photos(judge, world, pictures, cutouts, p.seed)
    order = np.arange(len(photos))
    top1 = statistics.ranks(photos, subjects, order) == 0
    return {"things": len(cutouts), **share_with_interval("top1", top1, order)}


def whole_photos(
    judge: ImageJudge, world: World, pictures: Pictures, cutouts: Sequence[int], seed: int
) -> tuple[statistics.Features, statistics.Features]:
    """Features of whole photos and of reference views."""
    rng = generator(seed, "measure/whole", 0)
    plans = [plan_of(world, [i], rng, Chances(recolor=0, style=0, two_objects=0)) for i in cutouts]
    images, _ = draw(pictures, plans, SIDE)
    subjects = composite_on_grey(references(pictures, plans, SIDE))
    return features(judge, images * 2 - 1), features(judge, subjects * 2 - 1)


def features(judge: ImageJudge, pixels: Pixels) -> statistics.Features:
    """Unit features (n, e) of pixels in [-1, 1]."""
    with torch.no_grad():
        chunks = [image_features(judge.model, chunk.to(judge.model.device)) for chunk in pixels.split(32)]
    return F.normalize(torch.cat(chunks).float(), dim=-1).cpu().numpy()


def pair_cosines(references: NDArray[np.float32], photos: statistics.Features) -> NDArray[np.float32]:
    """The cosine (n,) of each photo with its own reference in the best pose."""
    return np.einsum("npe,ne->np", references, photos).max(1)


def roc_auc(true: NDArray[np.float32], false: NDArray[np.float32]) -> float:
    """Area under the ROC curve: how often a true pair has a larger cosine than a false one."""
    below = np.searchsorted(np.sort(false), true, "left") + np.searchsorted(np.sort(false), true, "right")
    return float(below.mean() / 2 / len(false))


def held_out(world: World) -> list[int]:
    """Cut-outs that no training shows."""
    return [i for split in HELD_OUT for i in world.of_split(split)]


def subset(cutouts: Sequence[int], count: int, seed: int) -> list[int]:
    """At most `count` random cut-outs."""
    if len(cutouts) <= count:
        return list(cutouts)
    rng = np.random.default_rng(seed_for(seed, "measured", 0))
    return sorted(rng.choice(np.asarray(cutouts), count, replace=False).tolist())
