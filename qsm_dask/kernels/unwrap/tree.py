"""Unwrapping along the spanning tree of greatest weight of every disjoint component.

Edges are taken from the best to the worst; one that joins two parts fixes the turns between
them, any other is skipped. This finds the tree that growing a region from a seed finds, and
none of its components needs a seed. Weights are small integers, so that sorting takes time in
proportion to the voxels, and runs through memory in order, which a queue does not.
"""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Real
from qsm_dask.kernels.unwrap.weights import DONE, EVERY_VOXEL, PENDING, STATE, Indices, Records

Turns = NDArray[np.int16]

_TURN = 2 * np.pi


def unwrap_all(values: Real, found: Records) -> tuple[Indices, Indices]:
    """Unwrap every voxel to do; each component is left with an arbitrary multiple of 2 pi.

    Parameters
    ----------
    values : (x, y, z) phase [rad], unwrapped in place.
    found : see `weights.weigh_edges`.

    Returns
    -------
    order : the voxels, component after component.
    starts : where each component starts in `order`, and where the last ends.
    """
    links, turns = _join(values, found)
    starts = _number(found, links)
    order = np.empty(int(starts[-1]), dtype=links.dtype)
    _turn_all(values, found, links, turns, starts, order)
    return order, starts


def owners_of_rest(found: Records, order: Indices) -> Indices:
    """The voxels whose records hold the edges of voxels to do: these, and those done that precede them along an axis.

    Parameters
    ----------
    found : see `weights.records`.
    order : the voxels of the mask, in any order.
    """
    owners = np.empty(_owners(found, order, EVERY_VOXEL.copy()), order.dtype)
    _owners(found, order, owners)
    owners.sort()  # in the order of memory, as edges of equal weight are taken
    return owners


def unwrap_rest(values: Real, found: Records, owners: Indices) -> None:
    """Unwrap the voxels to do that reach a voxel done, in place; the others stay as they are.

    Parameters
    ----------
    values : (x, y, z) phase [rad].
    found : see `weights.weigh_edges`.
    owners : see `owners_of_rest`; if few are to do, this is all that is looked at.
    """
    if owners.size:
        links, turns = _join(values, found, owners)
        _turn_rest(values, found, links, turns, owners)


def _join(values: Real, found: Records, owners: Indices = EVERY_VOXEL) -> tuple[Indices, Turns]:
    dtype: type[np.signedinteger] = np.int32 if 4 * values.size < 2**31 else np.int64
    places = _places(found, owners)
    edges = np.empty(int(places[0]), dtype=dtype)
    _sort(found, places, edges, owners)
    links, fixed = np.empty(values.size, dtype=dtype), np.iinfo(dtype).min
    turns = np.zeros(values.size, dtype=np.int16)
    _begin(found, links, fixed, owners)
    _join_parts(values, edges, links, turns, fixed)
    return links, turns


@compiled
def _owners(found: Records, order: Indices, owners: Indices) -> int:
    """Count them, and list them where there is room."""
    nx, ny, nz, _ = found.shape
    record, number = found.reshape(-1, 4), 0
    for i in order:
        mine = record[i, STATE] == PENDING
        if not mine:
            mine |= i % nz + 1 < nz and record[i + 1, STATE] == PENDING
            mine |= i // nz % ny + 1 < ny and record[i + nz, STATE] == PENDING
            mine |= i // (ny * nz) + 1 < nx and record[i + ny * nz, STATE] == PENDING
        if mine:
            if owners.size:
                owners[number] = i
            number += 1
    return number


@compiled
def _places(found: Records, owners: Indices) -> Indices:
    """Where the edges of each weight end in a list from heavy to light."""
    counts = np.zeros(256, dtype=np.int64)
    record = found.reshape(-1, 4)
    for k in range(owners.size or record.shape[0]):
        i = np.int64(owners[k]) if owners.size else k
        for axis in range(3):
            counts[record[i, axis]] += 1
    counts[0] = 0
    for weight in range(254, -1, -1):
        counts[weight] += counts[weight + 1]
    return counts


@compiled
def _sort(found: Records, places: Indices, edges: Indices, owners: Indices) -> None:
    """Edges, as `4 * voxel + axis`, from heavy to light; equal ones in the order of memory."""
    record = found.reshape(-1, 4)
    at = np.zeros(256, dtype=np.int64)
    at[:255] = places[1:]
    for k in range(owners.size or record.shape[0]):
        i = np.int64(owners[k]) if owners.size else k
        for axis in range(3):
            weight = record[i, axis]
            if weight:
                edges[at[weight]] = 4 * i + axis
                at[weight] += 1


@compiled
def _begin(found: Records, links: Indices, fixed: int, owners: Indices) -> None:
    """The links of voxels by themselves, where edges lead."""
    _, ny, nz, _ = found.shape
    record = found.reshape(-1, 4)
    for k in range(owners.size or record.shape[0]):
        i = np.int64(owners[k]) if owners.size else k
        links[i] = fixed if record[i, STATE] == DONE else -1
        if owners.size:
            for axis, stride in enumerate((ny * nz, nz, 1)):
                if record[i, axis]:
                    links[i + stride] = fixed if record[i + stride, STATE] == DONE else -1


@compiled
def _join_parts(values: Real, edges: Indices, links: Indices, turns: Turns, fixed: int) -> None:
    """Join parts by weight.

    A link names the parent of a voxel, or, negative, that it is a root and the size of its
    part; `fixed` marks a voxel that was done before. Turns are relative to the parent's.
    """
    phase = values.ravel()
    _, ny, nz = values.shape
    strides = (ny * nz, nz, 1, 0)
    for edge in edges:
        i = edge >> 2
        j = i + strides[edge & 3]
        if links[i] >= 0 and links[i] == links[j]:
            continue
        a, turns_a = _root(links, turns, i)
        b, turns_b = _root(links, turns, j)
        if a == b or (links[a] == fixed and links[b] == fixed):
            continue
        apart = int(np.rint((phase[i] - phase[j]) / _TURN)) + turns_a - turns_b
        if links[b] < links[a]:
            a, b, apart = b, a, -apart
        if links[a] != fixed:
            links[a] += links[b]
        links[b] = a
        turns[b] = apart


@compiled
def _root(links: Indices, turns: Turns, i: int) -> tuple[int, int]:
    """The root of a voxel and the turns to it; links on the way are halved."""
    total = 0
    parent = links[i]
    while parent >= 0:
        above = links[parent]
        if above < 0:
            return parent, total + turns[i]
        turns[i] += turns[parent]
        links[i] = above
        total += turns[i]
        i = above
        parent = links[i]
    return i, total


@compiled
def _number(found: Records, links: Indices) -> Indices:
    """Where each component starts and the last ends; a root's link becomes -1 - its number."""
    record = found.reshape(-1, 4)
    starts = [0]
    for i in range(links.size):
        if record[i, STATE] == PENDING and links[i] < 0:
            starts.append(starts[-1] - links[i])
            links[i] = 1 - len(starts)
    return np.array(starts)


@compiled
def _turn_all(values: Real, found: Records, links: Indices, turns: Turns, starts: Indices, order: Indices) -> None:
    phase, record = values.ravel(), found.reshape(-1, 4)
    at = starts.copy()
    for i in range(phase.size):
        if record[i, STATE] == PENDING:
            root, away = _root(links, turns, i)
            phase[i] += _TURN * away
            component = -1 - links[root]
            order[at[component]] = i
            at[component] += 1


@compiled
def _turn_rest(values: Real, found: Records, links: Indices, turns: Turns, owners: Indices) -> None:
    phase, record = values.ravel(), found.reshape(-1, 4)
    for i in owners:
        if record[i, STATE] == PENDING:
            root, away = _root(links, turns, i)
            if record[root, STATE] == DONE:
                phase[i] += _TURN * away
