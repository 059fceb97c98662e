"""What `dynsys certify` says of a proof."""

from typing import Any

KINDS = {"neural": "trained function", "symbolic": "formula", "sos": "sum of squares"}


def proved(found: Any, candidate: str) -> str:
    """What is proved, and what became of the other function."""
    proof, (volume, error) = found.proof, found.volume
    plain = found.proof is found.plain[2]
    other = KINDS.get(candidate, candidate)
    beside = "" if found.other is None else f"; {_beside(*((other, found.other) if plain else ('plain quadratic', found.plain)))}"
    if not proof.proved:
        return f"{proof.outcome.value}: {proof.reason}{beside}"
    what = "plain quadratic" if plain else other
    why = f": {proof.limit}" if proof.limit else ""
    refuted = "" if proof.bracket[1] != proof.bracket[1] else f" (refuted at {proof.bracket[1]:.6g}{why})"
    about = f"{proof.boxes + proof.face_boxes} boxes in {proof.seconds:.2f} s, compilation {proof.compile_seconds:.1f} s"
    size = f"{volume:.5g}" + (f" ± {error:.2g}" if error else "")
    return f"proved: {what}, level {proof.level:.6g}{refuted}, volume {size}{beside}; rate {proof.rate:.3g}; {about}"


def _beside(what: str, side: Any) -> str:
    """How another function fared, from its loop, V, proof and volume."""
    proof = side[2]
    return f"the {what} proves {side[3][0]:.5g}" if proof.proved else f"the {what} is not proved ({proof.reason})"


def controller(loop: Any) -> str:
    """The controller, such as a person could build it."""
    from dynsys.verify.policy import SaturatedLinear

    policy = loop.policy
    if policy is None:
        return "none"
    if not isinstance(policy, SaturatedLinear):
        return type(policy).__name__
    K, goal, rest, low, high = (
        [float(f"{x:.6g}") for x in part.ravel()] for part in (policy.K, policy.goal, policy.rest, policy.low, policy.high)
    )
    rows = [K[i : i + len(goal)] for i in range(0, len(K), len(goal))]
    return f"u = rest - K (x - goal) between {low} and {high}; K = {rows}, goal = {goal}, rest = {rest}"


def failed(proof: Any, names: Any) -> str:
    """Why there is no certificate."""
    if proof.counterexample is not None:
        return f"the claim is false: {proof.counterexample.words(names)}."
    return f"not proved ({proof.reason})."


def remedy(proof: Any) -> str:
    """What to try next."""
    if proof.reason.startswith("width"):
        return "More time does not help there. Lower the level or the rate a little, or look whether the field has a jump or a kink."
    return proof.outcome.remedy
