"""Trees by name: leaves have paths such as `dec_8x8_block0/conv1/w`, and rules are regex lists."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

Tree = Any
Rules = Sequence[tuple[str, Any]]


def path_name(path: tuple) -> str:
    """'a/b/0' from a jax key path."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def leaves(tree: Tree) -> dict[str, Any]:
    """{name: leaf} in tree order."""
    return {path_name(p): x for p, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of dicts whose `leaves` are `flat`: "a/b" becomes the entry b of a."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def map_named(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """`f(name, leaf, ...)` over the leaves."""
    return jax.tree_util.tree_map_with_path(lambda p, *x: f(path_name(p), *x), tree, *rest)


def match(rules: Rules, name: str, what: str = "rule") -> Any:
    """The value of the first (regex, value) whose regex is found in `name`.

    Raises:
      ValueError: when none matches; the message lists the regexes.
    """
    for pattern, value in rules:
        if re.search(pattern, name):
            return value
    raise ValueError(
        f"no {what} matches the parameter {name!r}; the patterns are "
        f"{[p for p, _ in rules]}; add one (a last ('.*', value) catches everything)"
    )


def by_rules(rules: Rules, tree: Tree, what: str = "rule") -> Tree:
    """The value that the ordered rules give to each leaf; an unmatched leaf is an error."""
    return map_named(lambda name, _: match(rules, name, what), tree)


def mask(patterns: Sequence[str], tree: Tree) -> Tree:
    """True where a pattern is found in the leaf's name; one that matches nothing is an error."""
    names = list(leaves(tree))
    for pattern in patterns:
        if not any(re.search(pattern, n) for n in names):
            raise ValueError(
                f"the pattern {pattern!r} matches no parameter; the names are {names[:12]}"
                + (" ..." if len(names) > 12 else "")
            )
    return map_named(lambda n, _: any(re.search(p, n) for p in patterns), tree)


def count(tree: Tree) -> int:
    """The number of scalars in a tree."""
    return sum(int(x.size) for x in jax.tree.leaves(tree))


def nbytes(tree: Tree) -> int:
    """Bytes of the (possibly abstract) arrays of a tree; keys count as their uint32 data."""
    total = 0
    for x in jax.tree.leaves(tree):
        item = 8 if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize
        total += int(x.size) * item
    return total


def compare_names(expected: Tree, got: Sequence[str], what: str) -> None:
    """Raises ValueError listing the missing and unexpected names, if there are any."""
    want = set(leaves(expected)) if not isinstance(expected, (set, frozenset)) else expected
    missing, extra = sorted(want - set(got)), sorted(set(got) - want)
    if missing or extra:
        raise ValueError(
            f"{what} does not have the expected arrays: missing {missing or 'none'}, unexpected "
            f"{extra or 'none'}; the configuration that made it differs from the present one"
        )
