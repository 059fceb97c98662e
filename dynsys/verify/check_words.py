"""What a checked certificate says, and what one has to believe beside it, in words."""

from dynsys.verify.check_file import Claim


def in_words(claim: Claim) -> str:
    """The claim as a sentence; numbers with many digits are rounded in it, and told exactly after it."""
    n, cored = len(claim.goal), claim.core > 0
    numbers = {"level": claim.level, "rate": claim.rate, "core": claim.core}
    level, rate, core = (_short(x) for x in numbers.values())
    exactly = ", ".join(f"{name} {x!r}" for name, x in numbers.items() if _short(x) != repr(x))
    change = f"dV/dt <= -{rate} V" if claim.continuous else f"V(x+) <= (1 - {rate}) V(x)"
    change += f" as long as V is above {core}" if cored else ""
    if claim.rate == 0:
        end = "V never grows (with rate 0 nothing is said of convergence)"
    else:
        end = f"it ends in V <= {core}" if cored else "it converges to the goal"
    return (
        f"From every state x of the set S = {{V(x) <= {level}}} within the cube x = goal + T y, |y_i| <= 1, of {n} states, around "
        f"the goal {claim.goal.tolist()}, the trajectory of the {'flow' if claim.continuous else 'map'} stays in S and in the domain "
        f"{claim.low.tolist()} to {claim.high.tolist()}, {change} along it, and {end}"
        + (f", for all disturbances in {claim.w_low.tolist()} to {claim.w_high.tolist()}." if len(claim.w_low) else ".")
        + (f" Exactly: {exactly}." if exactly else "")
    )


def _short(x: float) -> str:
    """All digits if they are few, else six of them."""
    return repr(x) if len(repr(x)) <= 8 else f"{x:.6g}"


def assumptions(claim: Claim, exact: bool, walled: bool) -> tuple[str, ...]:
    """What one has to believe beside the verdict."""
    told = [
        "The programs in the file are the closed loop and V; they are read over the real numbers, every constant as its float64 value.",
        "Float64 sums, products, quotients and square roots are rounded to nearest with gradual underflow; sin, cos, tanh, exp, log and "
        "atan of numpy are within 2^-47 of the truth, relatively.",
    ]
    if claim.core == 0 and not exact:
        told.append("The goal is an exact equilibrium, under every disturbance; in floats it moves by no more than rounding explains.")
    if not walled:
        told.append("The limits of the domain hold up to 16 roundings.")
    if claim.continuous:
        told.append("The flow does not depend on time, and its solutions exist and are unique.")
    if len(claim.w_low):
        told.append("The disturbance stays in its box" + (" and is measurable in time." if claim.continuous else "."))
    return tuple(told)
