"""The checks of chapter 01 accept right solutions, however written, and name the mistake in wrong ones."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from tests.exercises.cases import run_cases
from vivit_edu.course.checks import ch01

# ---- 01.1 split by patient


def by_isin(patients, share, generator):
    numbers = patients.unique()
    drawn = numbers[torch.randperm(len(numbers), generator=generator)][: round(share * len(numbers))]
    return torch.isin(patients, drawn)


def by_inverse(patients, share, generator):
    numbers, which = patients.unique(return_inverse=True)
    rank = torch.rand(len(numbers), generator=generator).argsort().argsort()
    return rank[which] < round(share * len(numbers))


def by_set(patients, share, generator):
    numbers = sorted(set(patients.tolist()))
    order = torch.randperm(len(numbers), generator=generator).tolist()
    held = {numbers[i] for i in order[: int(share * len(numbers) + 0.5)]}
    return torch.tensor([int(p) in held for p in patients])


def by_multinomial(patients, share, generator):
    numbers = patients.unique()
    count = round(share * len(numbers))
    return torch.isin(patients, numbers[torch.multinomial(torch.ones(len(numbers)), count, generator=generator)])


def from_the_end(patients, share, generator):
    return torch.isin(patients, order(patients, generator)[-held(patients, share) :])


def by_clips(patients, share, generator):
    """Patients are added until their clips are enough."""
    mask = torch.zeros(len(patients), dtype=torch.bool)
    for patient in order(patients, generator):
        if mask.sum() < share * len(patients):
            mask |= patients == patient
    return mask


def draw(numbers, share, **how):
    return numbers[torch.randperm(len(numbers), **how)][: round(share * len(numbers))]


def cut_off(patients, share, generator):
    numbers = patients.unique()
    return torch.isin(patients, numbers[torch.randperm(len(numbers), generator=generator)][: int(share * len(numbers))])


def order(patients, generator):
    return patients.unique()[torch.randperm(len(patients.unique()), generator=generator)]


def held(patients, share):
    return round(share * len(patients.unique()))


def check_first(split):
    ch01.check_split(split, neighbour_by_cdist)


test_split_by_patient = run_cases(
    check_first,
    right=[by_isin, by_inverse, by_set, by_multinomial, from_the_end],
    wrong={
        "a run of neighbours": (
            lambda p, s, g: torch.isin(
                p, p.unique().roll(int(torch.randint(len(p.unique()), (), generator=g)))[: held(p, s)]
            ),
            "not a run of neighbours",
        ),
        "rounded up": (
            lambda p, s, g: torch.isin(p, order(p, g)[: math.ceil(s * len(p.unique()))]),
            "3 are held out, expected 2",
        ),
        "a coin for each": (
            lambda p, s, g: torch.isin(p, p.unique()[torch.rand(len(p.unique()), generator=g) < s]),
            "patients are held out",
        ),
        "share of the clips": (
            lambda p, s, g: torch.isin(p, order(p, g)[: round(s * len(p))]),
            "10 of 10 patients are held out, .*however many clips",
        ),
        "enough clips": (by_clips, "with other seeds 2 to 5 of 10 patients .*however many clips"),
        "with repetition": (
            lambda p, s, g: torch.isin(p, p.unique()[torch.randint(len(p.unique()), (held(p, s),), generator=g)]),
            "with other seeds . to 3 of 10|2 of 10",
        ),
        "uint8": (lambda p, s, g: by_isin(p, s, g).to(torch.uint8), "uint8, expected torch.bool"),
        "a seed of its own": (lambda p, s, g: by_isin(p, s, torch.Generator().manual_seed(0)), "every seed"),
        "the generator seeded again": (lambda p, s, g: by_isin(p, s, g.manual_seed(0)), "every seed"),
        "numpy's generator": (
            lambda p, s, g: torch.isin(p, torch.from_numpy(np.random.permutation(p.unique().numpy())[: held(p, s)])),
            "draws from the global generator",
        ),
        "by clip": (lambda p, s, g: torch.rand(len(p), generator=g) < s, "both sides"),
        "first clips": (lambda p, s, g: torch.arange(len(p)) < round(s * len(p)), "both sides"),
        "without unique": (lambda p, s, g: torch.isin(p, draw(p, s, generator=g)), "of 10 patients are held out"),
        "numbers as if without gaps": (lambda p, s, g: torch.isin(p, torch.randperm(10, generator=g)[:3]), "gaps"),
        "cut off": (cut_off, "takes to 3 and int"),
        "kept": (lambda p, s, g: ~by_isin(p, s, g), "share to keep"),
        "first patients": (lambda p, s, g: torch.isin(p, p.unique()[:3]), "every seed"),
        "generator not used": (lambda p, s, g: torch.isin(p, draw(p.unique(), s)), "draws from the global generator"),
        "one draw a patient": (
            lambda p, s, g: (torch.rand(10, generator=g) < s)[p.unique(return_inverse=True)[1]],
            "patients are held out",
        ),
        "numbers of clips": (lambda p, s, g: by_isin(p, s, g).nonzero().flatten(), "torch.bool"),
        "two masks": (lambda p, s, g: (by_isin(p, s, g), ~by_isin(p, s, g)), "tuple"),
        "one value a patient": (lambda p, s, g: torch.rand(10, generator=g) < s, r"shape \[10\]"),
    },
)

# ---- 01.1 nearest neighbour


def neighbour_by_cdist(vectors, labels, held):
    nearest = torch.cdist(vectors[held], vectors[~held]).argmin(dim=1)
    return (labels[~held][nearest] == labels[held]).double().mean()


def neighbour_by_loop(vectors, labels, held):
    right = 0
    seen = [i for i in range(len(held)) if not held[i]]
    for i in held.nonzero().flatten().tolist():
        best = min(seen, key=lambda j: (vectors[i] - vectors[j]).pow(2).sum().item())
        right += int(labels[best] == labels[i])
    return right / int(held.sum())


def neighbour_by_mask(vectors, labels, held):
    distances = torch.cdist(vectors, vectors).masked_fill(held, torch.inf)
    return (labels[distances.argmin(1)] == labels)[held].float().mean().item()


def neighbour_by_numpy(vectors, labels, held):
    x, y, h = vectors.numpy(), labels.numpy(), held.numpy()
    distances = ((x[h][:, None] - x[~h][None]) ** 2).sum(-1)
    return np.mean(y[~h][distances.argmin(1)] == y[h])


def by_mask(seen, held, pick=lambda distances: distances.argmin(1)):
    def wrong(vectors, labels, mask):
        nearest = pick(torch.cdist(vectors[held(mask)], vectors[seen(mask)]))
        return (labels[seen(mask)][nearest] == labels[held(mask)]).float().mean()

    return wrong


def check_second(accuracy):
    ch01.check_split(by_isin, accuracy)


test_nearest_neighbour = run_cases(
    check_second,
    right=[neighbour_by_cdist, neighbour_by_loop, neighbour_by_mask, neighbour_by_numpy],
    wrong={
        "finds itself": (by_mask(torch.ones_like, lambda m: m), "finds itself"),
        "finds itself among all": (
            lambda x, y, h: (y[torch.cdist(x, x).argmin(1)] == y)[h].float().mean(),
            "finds itself",
        ),
        "among the held out": (by_mask(lambda m: m, lambda m: m), "finds itself|among the held-out"),
        "the other way round": (by_mask(lambda m: m, lambda m: ~m), "other way round"),
        "furthest": (by_mask(lambda m: ~m, lambda m: m, lambda d: d.argmax(1)), "furthest"),
        "labels of all": (
            lambda x, y, h: (y[torch.cdist(x[h], x[~h]).argmin(1)] == y[h]).float().mean(),
            "index all labels",
        ),
        "dot product": (
            lambda x, y, h: (y[~h][(x[h] @ x[~h].T).argmax(1)] == y[h]).float().mean(),
            "largest dot product",
        ),
        "cosine": (
            lambda x, y, h: (y[~h][F.cosine_similarity(x[h][:, None], x[~h], dim=2).argmax(1)] == y[h]).float().mean(),
            "largest cosine",
        ),
        "Manhattan": (
            lambda x, y, h: (y[~h][torch.cdist(x[h], x[~h], p=1).argmin(1)] == y[h]).float().mean(),
            "(is|are) wrong",
        ),
        "a count": (
            lambda x, y, h: (y[~h][torch.cdist(x[h], x[~h]).argmin(1)] == y[h]).sum(),
            "number of right answers",
        ),
        "divided by all": (
            lambda x, y, h: (y[~h][torch.cdist(x[h], x[~h]).argmin(1)] == y[h]).sum() / len(y),
            "(is|are) wrong",
        ),
        "wrong ones": (lambda x, y, h: 1 - neighbour_by_cdist(x, y, h), "share of wrong answers"),
        "percent": (lambda x, y, h: 100 * neighbour_by_cdist(x, y, h), "percentage"),
        "along the wrong axis": (
            lambda x, y, h: (y[~h][torch.cdist(x[h], x[~h]).argmin(0)] == y[h]).float().mean(),
            "raised",
        ),
        "one by one": (
            lambda x, y, h: y[~h][torch.cdist(x[h], x[~h]).argmin(1)] == y[h],
            "numbers, expected one",
        ),
        "three nearest": (
            lambda x, y, h: (
                (y[~h][torch.cdist(x[h], x[~h]).topk(3, largest=False)[1]].mode(1)[0] == y[h]).float().mean()
            ),
            "(is|are) wrong|raised",
        ),
        "nothing returned": (lambda x, y, h: print(end=""), "None"),
    },
)

# ---- 01.2 balanced accuracy


def recalls_by_loop(guesses, labels):
    shares = []
    for k in labels.unique():
        mine = labels == k
        shares.append((guesses[mine] == k).float().mean())
    return torch.stack(shares).mean()


def recalls_by_counting(guesses, labels):
    counts = labels.bincount()
    hits = labels[guesses == labels].bincount(minlength=len(counts))
    there = counts > 0
    return (hits[there] / counts[there]).mean().item()


def recalls_by_weights(guesses, labels):
    weight = 1 / labels.bincount().float()[labels]
    return ((guesses == labels) * weight).sum() / len(set(labels.tolist()))


def recalls_by_numpy(guesses, labels):
    guesses, labels = guesses.numpy(), labels.numpy()
    return np.mean([np.mean(guesses[labels == k] == k) for k in np.unique(labels)])


def check_balanced(function):
    ch01.check_measures(function, auc_by_pairs)


test_balanced_accuracy = run_cases(
    check_balanced,
    right=[recalls_by_numpy, recalls_by_loop, recalls_by_counting, recalls_by_weights],
    wrong={
        "labels up to the largest": (
            lambda g, y: (
                torch.stack([(g[y == k] == k).float().mean() for k in range(int(y.max()) + 1)]).nan_to_num().mean()
            ),
            "classes without a clip",
        ),
        "classes of the guesses": (
            lambda g, y: torch.stack([(g[y == k] == k).float().mean() for k in g.unique()]).nanmean(),
            "those of the guesses",
        ),
        "all eleven": (lambda g, y: sum((g[y == k] == k).float().mean() for k in y.unique()) / 11, "(is|are) wrong"),
        "F1": (
            lambda g, y: torch.stack(
                [2 * ((g == k) & (y == k)).sum() / ((g == k).sum() + (y == k).sum()) for k in y.unique()]
            ).mean(),
            "this is F1",
        ),
        "median": (
            lambda g, y: torch.stack([(g[y == k] == k).float().mean() for k in y.unique()]).median(),
            "median",
        ),
        "a list": (lambda g, y: [(g[y == k] == k).float().mean() for k in y.unique()], "is 3 numbers, expected one"),
        "accuracy": (lambda g, y: (g == y).float().mean(), "plain accuracy"),
        "absent classes": (
            lambda g, y: torch.stack(
                [((g == k) & (y == k)).sum() / (y == k).sum().clamp(min=1) for k in range(6)]
            ).mean(),
            "classes without a clip",
        ),
        "nan": (
            lambda g, y: torch.stack([(g[y == k] == k).float().mean() for k in range(6)]).mean(),
            "found nan, .*without a clip counted.*unique",
        ),
        "sum": (lambda g, y: sum((g[y == k] == k).float().mean() for k in y.unique()), "summed"),
        "precision": (
            lambda g, y: torch.stack([(y[g == k] == k).float().mean() for k in g.unique()]).mean(),
            "precision",
        ),
        "precision of the labels' classes": (
            lambda g, y: torch.stack([(y[g == k] == k).float().mean() for k in y.unique()]).mean(),
            "precision",
        ),
        "percent": (lambda g, y: 100 * recalls_by_loop(g, y), "percentage"),
        "one value a class": (
            lambda g, y: torch.stack([(g[y == k] == k).float().mean() for k in y.unique()]),
            "is 3 numbers, expected one",
        ),
        "no return": (lambda g, y: None, "None"),
        "error": (lambda g, y: g.mean(), "raised"),
    },
)

# ---- 01.2 AUC


def auc_by_pairs(scores, labels):
    shares = []
    for k in labels.unique():
        of_class, others = scores[labels == k, k], scores[labels != k, k]
        wins = (of_class[:, None] > others).float() + 0.5 * (of_class[:, None] == others).float()
        shares.append(wins.mean())
    return torch.stack(shares).mean()


def auc_by_sign(scores, labels):
    found = [
        ((scores[labels == k, k][:, None] - scores[labels != k, k]).sign().mean() + 1) / 2 for k in set(labels.tolist())
    ]
    return sum(found) / len(found)


def auc_by_loops(scores, labels):
    shares = []
    for k in sorted(set(labels.tolist())):
        wins = pairs = 0
        for i in range(len(labels)):
            for j in range(len(labels)):
                if labels[i] == k and labels[j] != k:
                    pairs += 1
                    wins += 1 if scores[i, k] > scores[j, k] else 0.5 if scores[i, k] == scores[j, k] else 0
        shares.append(wins / pairs)
    return float(np.mean(shares))


def auc_by_sklearn(scores, labels):
    from sklearn.metrics import roc_auc_score

    return np.mean([roc_auc_score(labels == k, scores[:, k]) for k in labels.unique()])


def pairs_of(scores, labels, win, classes=None):
    classes = labels.unique() if classes is None else classes
    return torch.stack([win(scores[labels == k, k][:, None], scores[labels != k, k]).float().mean() for k in classes])


def halves(a, b):
    return (a > b).float() + 0.5 * (a == b)


def auc_of_probabilities(scores, labels):
    return auc_by_pairs(scores.softmax(dim=1), labels)


def within_clips(scores, labels):
    own = scores[torch.arange(len(labels)), labels]
    wins = [halves(own[i], scores[i, k]) for i in range(len(labels)) for k in range(scores.shape[1]) if k != labels[i]]
    return torch.stack(wins).mean()


test_auc = run_cases(
    lambda auc: ch01.check_measures(recalls_by_loop, auc),
    right=[auc_by_pairs, auc_by_sign, auc_by_loops, auc_by_sklearn],
    wrong={
        "ties lost": (lambda s, y: pairs_of(s, y, torch.gt).mean(), "ties count as lost"),
        "ties won": (lambda s, y: pairs_of(s, y, torch.ge).mean(), "ties count as won"),
        "turned round": (lambda s, y: pairs_of(s, y, lambda a, b: halves(b, a)).mean(), "turned round"),
        "pooled": (
            lambda s, y: torch.cat([halves(s[y == k, k][:, None], s[y != k, k]).flatten() for k in y.unique()]).mean(),
            "averaged together",
        ),
        "weighted": (
            lambda s, y: (pairs_of(s, y, halves) * y.bincount()[y.unique()]).sum() / len(y),
            "weighted by their clips",
        ),
        "absent classes as 0": (
            lambda s, y: pairs_of(s, y, halves, range(s.shape[1])).nan_to_num().mean(),
            "count as 0",
        ),
        "absent classes": (
            lambda s, y: pairs_of(s, y, halves, range(s.shape[1])).mean(),
            "found nan, .*without a clip counted",
        ),
        "row with row": (
            lambda s, y: torch.stack([(s[y == k, k] > s[y != k, k]).float().mean() for k in y.unique()]).mean(),
            r"the scores of the class a column \[n, 1\] and those of the others a row \[m\]\n.*\.$",
        ),
        "summed": (lambda s, y: pairs_of(s, y, halves).sum(), "summed"),
        "within a clip": (within_clips, "classes of one clip"),
        "with its own": (
            lambda s, y: torch.stack([halves(s[y == k, k][:, None], s[:, k]).mean() for k in y.unique()]).mean(),
            "own class too",
        ),
        "always column 0": (
            lambda s, y: torch.stack([halves(s[y == k, 0][:, None], s[y != k, 0]).mean() for k in y.unique()]).mean(),
            "column k",
        ),
        "a softmax before": (auc_of_probabilities, "(is|are) wrong"),
        "accuracy": (lambda s, y: (s.argmax(1) == y).float().mean(), "this is the accuracy"),
        "one value per class": (lambda s, y: pairs_of(s, y, halves), "4 numbers, expected one"),
        "differences": (lambda s, y: pairs_of(s, y, torch.sub).mean(), "(is|are) wrong"),
        "from -1 to 1": (lambda s, y: pairs_of(s, y, lambda a, b: (a - b).sign()).mean(), "(is|are) wrong"),
        "nothing returned": (lambda s, y: print(end=""), "None"),
    },
)

# ---- 01.3 distances to means


def by_cdist(clips, labels, new):
    means = torch.stack([clips[labels == k].float().mean(dim=0) for k in range(labels.max() + 1)])
    return torch.cdist(new.float().flatten(1), means.flatten(1))


def by_difference(clips, labels, new):
    columns = []
    for k in range(int(labels.max()) + 1):
        mean = clips[labels == k].double().mean(0)
        columns.append(((new.double() - mean) ** 2).flatten(1).sum(1).sqrt())
    return torch.stack(columns, dim=1).float()


def by_one_hot(clips, labels, new):
    members = F.one_hot(labels).float()  # [N, K]
    means = members.T @ clips.flatten(1).float() / members.sum(dim=0)[:, None]
    return (new.flatten(1).float()[:, None] - means).norm(dim=2)


def clip_by_clip(clips, labels, new):
    classes = labels.unique()
    means = [clips[labels == k].to(torch.float32).mean(0) for k in classes]
    return torch.tensor([[torch.linalg.vector_norm(x.float() - mean).item() for mean in means] for x in new])


def class_means(clips, labels, how=lambda of_class: of_class.mean(dim=0)):
    return torch.stack([how(clips[labels == k].float()) for k in range(labels.max() + 1)]).flatten(1)


def flat(new):
    return new.float().flatten(1)


def in_bytes(clips, labels, new):
    means = torch.stack([clips[labels == k].float().mean(0).byte() for k in range(labels.max() + 1)])
    return (new[:, None] - means).flatten(2).float().norm(dim=2)


def rounded(clips, labels, new):
    means = torch.stack([clips[labels == k].float().mean(0).to(clips.dtype) for k in range(labels.max() + 1)])
    return torch.cdist(new.float().flatten(1), means.float().flatten(1))


def in_place(clips, labels, new):
    found = by_cdist(clips, labels, new)
    clips -= 1
    return found


def five_axes(clips, labels, new):
    n, c, t, h, w = clips.shape
    return by_cdist(clips.view(n, c * t * h * w), labels, new)


test_distances = run_cases(
    ch01.check_distances,
    right=[by_cdist, by_difference, by_one_hot, clip_by_clip],
    wrong={
        "bytes": (in_bytes, "uint8 was subtracted"),
        "rounded means": (rounded, "rounded to whole numbers"),
        "byte mean": (lambda c, y, n: c[y == 0].mean(0), "raised RuntimeError"),
        "the nearest": (lambda c, y, n: by_cdist(c, y, n).argmin(dim=1), "all distances"),
        "exchanged": (lambda c, y, n: torch.cdist(class_means(c, y), flat(n)), "axes are exchanged"),
        "squared": (lambda c, y, n: ((flat(n)[:, None] - class_means(c, y)) ** 2).sum(2), "squared"),
        "mean squares": (lambda c, y, n: ((flat(n)[:, None] - class_means(c, y)) ** 2).mean(2), "mean of the squares"),
        "root of mean squares": (
            lambda c, y, n: ((flat(n)[:, None] - class_means(c, y)) ** 2).mean(2).sqrt(),
            "root of the mean",
        ),
        "absolute": (lambda c, y, n: torch.cdist(flat(n), class_means(c, y), p=1), "absolute differences"),
        "sums": (lambda c, y, n: torch.cdist(flat(n), class_means(c, y, lambda x: x.sum(0))), "summed"),
        "median": (lambda c, y, n: torch.cdist(flat(n), class_means(c, y, lambda x: x.median(0).values)), "median"),
        "brightness": (
            lambda c, y, n: (flat(n).mean(1)[:, None] - class_means(c, y).mean(1)).abs(),
            "only the brightness",
        ),
        "single clips": (lambda c, y, n: torch.cdist(flat(n), flat(c)), "single clips"),
        "nearest clip of a class": (
            lambda c, y, n: torch.stack([torch.cdist(flat(n), flat(c[y == k])).min(1).values for k in y.unique()], 1),
            "nearest clip of each class",
        ),
        "dot products": (lambda c, y, n: flat(n) @ class_means(c, y).T, "dot products"),
        "in order of appearance": (
            lambda c, y, n: torch.stack(
                [(flat(n) - flat(c)[y == k].mean(0)).norm(dim=1) for k in dict.fromkeys(y.tolist())], 1
            ),
            "order in which they appear",
        ),
        "range without its end": (
            lambda c, y, n: torch.cdist(flat(n), torch.stack([flat(c)[y == k].mean(0) for k in range(y.max())])),
            "last class is missing",
        ),
        "eleven classes": (
            lambda c, y, n: torch.cdist(flat(n), torch.stack([flat(c)[y == k].mean(0) for k in range(11)])),
            r"shape \[6, 11\], expected \[6, 4\]",
        ),
        "negative": (lambda c, y, n: -by_cdist(c, y, n), "negative"),
        "one clip loses its axis": (lambda c, y, n: by_cdist(c, y, n).squeeze(), r"shape \[2\], expected \[1, 2\]"),
        "five axes": (five_axes, "raised ValueError"),
        "a list": (lambda c, y, n: by_cdist(c, y, n).tolist(), "a list"),
        "float64": (lambda c, y, n: by_cdist(c, y, n).double(), "float64, expected float32"),
        "in place": (in_place, "changes the .* that it was given"),
    },
)

# ---- 01.4 scores on one scale


def standardised(scores):
    scores = scores.double()
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True, unbiased=False)


def by_moments(scores):
    s = scores.to(torch.float64)
    s = s - s.mean(dim=-1)[:, None]
    return s / (s**2).mean(dim=-1).sqrt()[:, None]


def by_numpy(scores):
    s = scores.numpy().astype(np.float64)
    return torch.from_numpy((s - s.mean(1, keepdims=True)) / s.std(1, keepdims=True))


def by_layer_norm(scores):
    return F.layer_norm(scores.double(), scores.shape[1:], eps=0.0)


def row_by_row(scores):
    return torch.stack([(row - row.mean()) / row.var(correction=0).sqrt() for row in scores.double()])


def z(scores, dim=1, **how):
    how = how or {"correction": 0}
    return (scores - scores.mean(dim, keepdim=True)) / scores.std(dim, keepdim=True, **how)


def changes_scores(scores):
    scores -= scores.mean(1, keepdim=True)
    return scores.double() / scores.double().std(1, keepdim=True, correction=0)


test_comparable = run_cases(
    ch01.check_comparable,
    right=[standardised, by_moments, by_numpy, by_layer_norm, row_by_row],
    wrong={
        "as before": (lambda s: s.softmax(dim=1), "a softmax again"),
        "softmax in float64": (lambda s: s.double().softmax(1), "a softmax again"),
        "log_softmax": (lambda s: s.double().log_softmax(1), "log-probabilities"),
        "softmax of the standardised": (lambda s: z(s.double()).softmax(1), "leave the softmax out"),
        "smaller numbers": (lambda s: s.double() / 1000, "a fixed number"),
        "softmax of smaller numbers": (lambda s: (s / 1000).softmax(1), "(is|are) wrong|float32"),
        "mean alone": (lambda s: s.double() - s.double().mean(1, keepdim=True), "unit still matters"),
        "division alone": (lambda s: s.double() / s.double().std(1, keepdim=True, correction=0), "zero point"),
        "over the clips": (lambda s: z(s.double(), 0), r"over the clips \(dim=0\)"),
        "over all": (lambda s: (s.double() - s.double().mean()) / s.double().std(correction=0), "for all clips"),
        "torch's std": (lambda s: z(s.double(), correction=1), "correction=0"),
        "variance": (lambda s: z(s.double()) / s.double().std(1, keepdim=True, correction=0), "variance"),
        "ranks": (lambda s: s.argsort(1).argsort(1).double(), "these are ranks"),
        "standardised ranks": (lambda s: z(s.argsort(1).argsort(1).double()), "standardised ranks"),
        "from 0 to 1": (
            lambda s: (s.double() - s.double().min(1, True)[0]) / (s.max(1, True)[0] - s.min(1, True)[0]).double(),
            "from 0 to 1|(is|are) wrong",
        ),
        "length one": (lambda s: s.double() / s.double().norm(dim=1, keepdim=True), "length of the row"),
        "turned round": (lambda s: -z(s.double()), "order is turned round"),
        "float32": (lambda s: z(s), "float32, expected float64"),
        "float32 first": (lambda s: z(s.float()).double(), "computed in float32"),
        "without keepdim": (
            lambda s: (s.double() - s.double().mean(1)) / s.double().std(1),
            r"without keepdim=True the means are \[B\] and not \[B, 1\]\n.*s \[4, 7\]\.$",
        ),
        "float64 at the end": (lambda s: z(s).double(), r"float32 scores around 1,000,000.*s.double\(\) comes before"),
        "eleven classes": (lambda s: z(s.double().view(-1, 11)).view(s.shape), "raised RuntimeError"),
        "a safe division": (
            lambda s: (
                (s.double() - s.double().mean(1, keepdim=True)) / (s.double().std(1, keepdim=True, correction=0) + 1e-3)
            ),
            "(is|are) wrong",
        ),
        "in place": (changes_scores, "changes the .* that it was given"),
        "nothing returned": (lambda s: None, "return"),
    },
)

# ---- 01.5 correlation and the axis of the mirror


def by_cosine(a, b):
    return F.cosine_similarity((a - a.mean()).flatten(), (b - b.mean()).flatten(), dim=0)


def by_corrcoef(a, b):
    return torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1].item()


def by_sums(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()


def by_numpy_corrcoef(a, b):
    return np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1]


def axis_by_index(right, left):
    likeness = [by_cosine(right.flip(axis), left) for axis in (1, 2, 3)]
    return 1 + likeness.index(max(likeness))


def axis_by_loop(right, left):
    best, found = -2.0, None
    for axis in range(1, right.ndim):
        if (c := by_sums(torch.flip(right, (axis,)), left)) > best:
            best, found = c, axis
    return found


def axis_by_argmax(right, left):
    return torch.tensor([by_corrcoef(right.flip(axis), left) for axis in (1, 2, 3)]).argmax() + 1


def axis_by_distance(right, left):
    """The dot products and the lengths are those of the correlations, so the nearest flip is the most alike."""
    return min((1, 2, 3), key=lambda axis: float(((right.flip(axis) - left) ** 2).sum()))


PAIRS = {  # right solutions of both functions
    "cosine": (by_cosine, axis_by_index),
    "corrcoef": (by_corrcoef, axis_by_loop),
    "sums": (by_sums, axis_by_argmax),
    "numpy": (by_numpy_corrcoef, axis_by_distance),
}


def both(correlation=by_cosine, axis=axis_by_index):
    return correlation, axis


def check_both(pair):
    ch01.check_mirror_axis(*pair)


def likeness(right, left, axes=(1, 2, 3)):
    return [by_cosine(right.flip(axis), left).item() for axis in axes]


class Named(tuple):
    """A pair of functions with a name, for the names of the tests."""

    def __new__(cls, name, pair):
        found = super().__new__(cls, pair)
        found.__name__ = name
        return found


test_mirror_axis = run_cases(
    check_both,
    right=[Named(name, pair) for name, pair in PAIRS.items()],
    wrong={
        "cosine alone": (both(lambda a, b: F.cosine_similarity(a.flatten(), b.flatten(), dim=0)), "not subtracted"),
        "one mean": (
            both(lambda a, b: F.cosine_similarity((a - a.mean()).flatten(), b.flatten(), dim=0)),
            "only one of the two means",
        ),
        "covariance": (both(lambda a, b: ((a - a.mean()) * (b - b.mean())).mean()), "covariance"),
        "dot product": (both(lambda a, b: ((a - a.mean()) * (b - b.mean())).sum()), "dot product"),
        "size": (both(lambda a, b: by_cosine(a, b).abs()), "sign is lost"),
        "square": (both(lambda a, b: by_cosine(a, b) ** 2), "square"),
        "distance": (both(lambda a, b: 1 - by_cosine(a, b)), "1 - the correlation"),
        "places": (
            both(lambda a, b: F.cosine_similarity(a - a.mean(), b - b.mean(), dim=0)),
            "3 numbers, expected one",
        ),
        "rows": (both(lambda a, b: F.cosine_similarity(a - a.mean(), b - b.mean(), dim=-1)), "2 numbers, expected one"),
        "matrix": (both(lambda a, b: torch.corrcoef(torch.stack((a.flatten(), b.flatten())))), "expected one"),
        "n and n - 1": (
            both(lambda a, b: ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())),
            "n and n - 1",
        ),
        "four axes": (both(lambda a, b: torch.einsum("cthw,cthw->", a, b)), "(is|are) wrong|covariance|dot|raised"),
        "from 0": (both(axis=lambda r, t: axis_by_index(r, t) - 1), "counted from 0"),
        "in a batch": (both(axis=lambda r, t: axis_by_index(r, t) + 1), "without B"),
        "smallest": (both(axis=lambda r, t: 1 + likeness(r, t).index(min(likeness(r, t)))), "strongly negative"),
        "strongly negative": (
            both(axis=lambda r, t: 1 + int(torch.tensor(likeness(r, t)).abs().argmax())),
            "strongly negative",
        ),
        "the correlation": (both(axis=lambda r, t: max(likeness(r, t))), "correlation itself"),
        "with itself": (both(axis=lambda r, t: 1 + likeness(r, r).index(max(likeness(r, r)))), "own flips"),
        "of [T, H, W]": (
            both(axis=lambda r, t: likeness(r, t, (0, 1, 2)).index(max(likeness(r, t, (0, 1, 2))))),
            "channels were flipped",
        ),
        "range(3), plus 1": (
            both(axis=lambda r, t: 1 + likeness(r, t, range(3)).index(max(likeness(r, t, range(3))))),
            "axis 0 is the channels",
        ),
        "range(1, 3)": (
            both(axis=lambda r, t: 1 + likeness(r, t, range(1, 3)).index(max(likeness(r, t, range(1, 3))))),
            "axis 3 was left out",
        ),
        "a written into": (both(lambda a, b: by_cosine(a.sub_(a.mean()), b)), "changes the argument `a` that"),
        "always 3": (both(axis=lambda r, t: 3), "always 3"),
        "all three": (both(axis=likeness), "3 numbers, expected one"),
        "a letter": (both(axis=lambda r, t: "THW"[axis_by_index(r, t) - 1]), "expected one number, 1, 2 or 3"),
        "no return": (both(axis=lambda r, t: print(end="")), "None"),
    },
)

# ---- 01.6 flips with labels


def by_clone(clips, labels, mirror, chosen):
    clips, labels = clips.clone(), labels.clone()
    clips[chosen] = clips[chosen].flip(mirror.axis + 1)
    labels[chosen] = torch.tensor(mirror.permutation)[labels[chosen]]
    return clips, labels


def by_where(clips, labels, mirror, chosen):
    clips = torch.where(chosen[:, None, None, None, None], clips.flip(mirror.axis - 4), clips)
    return clips, torch.where(chosen, torch.tensor(mirror.permutation)[labels], labels)


def by_clip(clips, labels, mirror, chosen):
    flipped = [c.flip(mirror.axis) if f else c for c, f in zip(clips, chosen)]
    named = [mirror.permutation[k] if f else int(k) for k, f in zip(labels, chosen)]
    return torch.stack(flipped), torch.tensor(named)


def edit(**changes):
    """by_where with some of its parts replaced by a mistake."""

    def wrong(clips, labels, mirror, chosen):
        right_clips, right_labels = by_where(clips, labels, mirror, chosen)
        found = {"clips": right_clips, "labels": right_labels}
        found |= {key: make(clips, labels, mirror, chosen) for key, make in changes.items()}
        return found["clips"], found["labels"]

    return wrong


def changes_its_input(clips, labels, mirror, chosen):
    clips[chosen] = clips[chosen].flip(mirror.axis + 1)
    labels[chosen] = torch.tensor(mirror.permutation)[labels[chosen]]
    return clips, labels


def one_after_the_other(clips, labels, mirror, chosen):
    labels = labels.clone()
    for old, new in enumerate(mirror.permutation):
        labels[chosen & (labels == old)] = new
    return labels


def a_tuple_of_labels(clips, labels, mirror, chosen):
    labels = labels.clone()
    labels[chosen] = mirror.permutation[labels[chosen]]
    return clips, labels


def only_if_any(clips, labels, mirror, chosen):
    return by_where(clips, labels, mirror, chosen) if chosen.any() else (clips, labels)


def along(axis_of):
    return lambda c, y, m, f: torch.where(f[:, None, None, None, None], c.flip(axis_of(m)), c)


test_mirrored = run_cases(
    ch01.check_mirrored,
    right=[by_clone, by_where, by_clip],
    wrong={
        "decimals": (edit(clips=lambda c, y, m, f: by_where(c, y, m, f)[0].float()), "float32, expected uint8"),
        "the first alone": (
            edit(clips=lambda c, y, m, f: torch.cat((c[:1].flip(m.axis + 1) if f[0] else c[:1], c[1:]))),
            "clips (is|are) wrong",
        ),
        "all where one is chosen": (
            lambda c, y, m, f: (c.flip(m.axis + 1), torch.tensor(m.permutation)[y]) if f.any() else (c, y),
            "all clips were flipped",
        ),
        "width or height": (edit(clips=along(lambda m: 4 if m.axis == 3 else 2)), "wrong axis"),
        "axis off by one": (edit(clips=along(lambda m: m.axis)), "wrong axis"),
        "axis written in": (edit(clips=along(lambda m: 4)), "mirror.axis"),
        "all clips": (edit(clips=lambda c, y, m, f: c.flip(m.axis + 1)), "all clips"),
        "the others": (edit(clips=lambda c, y, m, f: by_where(c, y, m, ~f)[0]), "not chosen"),
        "no flip": (edit(clips=lambda c, y, m, f: c), "no clip"),
        "labels kept": (edit(labels=lambda c, y, m, f: y), "not swapped"),
        "one after the other": (edit(labels=one_after_the_other), "1 became 2 and then 1 again"),
        "the tuple": (a_tuple_of_labels, r"make it a tensor first, then index it\n.*\]\.$"),
        "only if any": (only_if_any, "no clip is chosen, your function returns the very clips"),
        "all labels": (edit(labels=lambda c, y, m, f: torch.tensor(m.permutation)[y]), "all labels"),
        "pairs written in": (
            edit(labels=lambda c, y, m, f: torch.where(f, torch.tensor([0, 2, 1, 4, 3])[y], y)),
            "mirror.permutation",
        ),
        "other labels": (edit(labels=lambda c, y, m, f: by_where(c, y, m, ~f)[1]), "were not flipped"),
        "in place": (changes_its_input, "changes the .* that it was given"),
        "only the chosen": (lambda c, y, m, f: (c[f].flip(m.axis + 1), torch.tensor(m.permutation)[y[f]]), "shape"),
        "clips alone": (lambda c, y, m, f: by_where(c, y, m, f)[0], "2 things"),
    },
)

# ---- 01.8 the winner


def winner_by_isin(hits, patients, choosing):
    seen = torch.isin(patients, choosing)
    best = hits[:, seen].float().mean(dim=1).argmax()
    return hits[best, seen].double().mean(), hits[best, ~seen].double().mean()


def winner_by_loop(hits, patients, choosing):
    chosen = {int(p) for p in choosing}
    seen = [i for i, p in enumerate(patients.tolist()) if p in chosen]
    fresh = [i for i in range(len(patients)) if i not in seen]
    rows = hits.tolist()
    best = max(rows, key=lambda row: sum(row[i] for i in seen))
    return sum(best[i] for i in seen) / len(seen), sum(best[i] for i in fresh) / len(fresh)


def winner_by_numpy(hits, patients, choosing):
    hits, seen = hits.numpy(), np.isin(patients.numpy(), choosing.numpy())
    best = hits[:, seen].sum(axis=1).argmax()
    return hits[best][seen].mean(), hits[best][~seen].mean()


def winner_by_any(hits, patients, choosing):
    seen = (patients[:, None] == choosing).any(dim=1)
    there, fresh = ((hits & part).sum(dim=1) / part.sum() for part in (seen, ~seen))
    best = there.argmax()
    return torch.stack((there[best], fresh[best]))


def parts(hits, patients, choosing):
    seen = torch.isin(patients, choosing)
    return hits[:, seen].double().mean(1), hits[:, ~seen].double().mean(1), hits.double().mean(1)


def with_parts(answer):
    return lambda hits, patients, choosing: answer(*parts(hits, patients, choosing))


def by_patient(hits, patients, choosing):
    """Each patient counts the same, however many clips they have."""
    seen = torch.isin(patients, choosing)
    best = hits[:, seen].double().mean(1).argmax()
    means = [
        torch.stack([hits[best, patients == p].double().mean() for p in patients[part].unique()]).mean()
        for part in (seen, ~seen)
    ]
    return tuple(means)


test_pick_winner = run_cases(
    ch01.check_pick_winner,
    right=[winner_by_isin, winner_by_loop, winner_by_numpy, winner_by_any],
    wrong={
        "all choose": (with_parts(lambda a, b, c: (a[c.argmax()], b[c.argmax()])), "chosen on all patients"),
        "the testers choose": (with_parts(lambda a, b, c: (a[b.argmax()], b[b.argmax()])), "that are to test it"),
        "exchanged": (with_parts(lambda a, b, c: (b[a.argmax()], a[a.argmax()])), "are exchanged"),
        "over all": (with_parts(lambda a, b, c: (a[a.argmax()], c[a.argmax()])), "over all patients"),
        "two winners": (with_parts(lambda a, b, c: (a.max(), b.max())), "two classifiers"),
        "the worst": (with_parts(lambda a, b, c: (a[a.argmin()], b[a.argmin()])), "worst"),
        "means of all": (with_parts(lambda a, b, c: (a.mean(), b.mean())), "averaged over all classifiers"),
        "counts": (
            lambda h, p, c: tuple(
                h[parts(h, p, c)[0].argmax()][part].sum() for part in (torch.isin(p, c), ~torch.isin(p, c))
            ),
            "divide by the number of clips",
        ),
        "numbers as indices": (
            lambda h, p, c: winner_by_isin(h, torch.arange(len(p)), c),
            "used as indices of clips",
        ),
        "clips of one patient": (lambda h, p, c: winner_by_isin(h, p, c[:1]), "(is|are) wrong"),
        "by patient": (by_patient, "(is|are) wrong"),
        "the index": (with_parts(lambda a, b, c: a.argmax()), "2 things: the winner's accuracy"),
        "two indices": (with_parts(lambda a, b, c: (a.argmax(), b.argmax())), r"winner's place \(argmax\)"),
        "index and accuracy": (with_parts(lambda a, b, c: (a.argmax(), a.max())), r"winner's place \(argmax\)"),
        "per cent": (with_parts(lambda a, b, c: (100 * a.max(), 100 * b[a.argmax()])), "in per cent"),
        "mask turned round": (with_parts(lambda a, b, c: (b.max(), a[b.argmax()])), "mask is turned round"),
        "isin turned round": (
            lambda h, p, c: winner_by_isin(h, c, p),
            r"isin\(patients, choosing\), in this order.*\n.*\]\.$",
        ),
        "the second made up": (with_parts(lambda a, b, c: (a.max(), 0.1)), "its accuracy on the others is wrong"),
        "all accuracies": (with_parts(lambda a, b, c: (a, b)), "numbers, expected one"),
        "first of all": (with_parts(lambda a, b, c: (a[0], b[0])), "(is|are) wrong"),
        "in place": (lambda h, p, c: winner_by_isin(h, p.add_(0).mul_(2), c * 2), "changes the"),
        "nothing returned": (lambda h, p, c: print(end=""), "None"),
    },
)


# ---- drawings


def test_drawings():
    from tests.course.test_pictures import assert_readable
    from vivit_edu.course.schematics import streaks

    clips = torch.randint(0, 256, (4, 1, 8, 9, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    slices, half = clips[:, 0, :, :8, :8].reshape(32, 64).float().repeat(2, 1)[:40], torch.arange(40) % 2 == 0
    labels, patients, names = torch.arange(40) // 10, torch.arange(40) // 20, ("liver", "heart", "spleen", "lung")
    for figure in (
        streaks.frames_in_rows({"video: a pin": clips[0], "volume": clips[1]}, count=4),
        streaks.three_cuts({"video: a pin": clips[0], "volume": clips[1]}),
        streaks.near_copies(slices, labels, patients, {"one way": half, "the other": ~half}, names),
        streaks.reflections(clips[0].float(), "mean femur"),
        streaks.groups_of_scores({"one": [0.5, 0.6], "two": [0.7, 0.9]}, "accuracy", ("validation", 0.65)),
        streaks.winners([0.7, 0.8, 0.75], [0.6, 0.7, 0.65], 0.64),
    ):
        assert_readable(figure)


def test_a_flip_along_any_axis_is_a_mirror_image():
    clip = torch.arange(60).view(3, 4, 5)
    assert torch.equal(clip.flip(0), torch.rot90(clip.flip(2), 2, (0, 2)))
    assert torch.equal(clip.flip(1), torch.rot90(clip.flip(2), 2, (1, 2)))
