"""The language of system files: text -> checked syntax tree -> function of arrays; user text is never evaluated by Python."""

from dynsys_datasets.equation.latex import latex
from dynsys_datasets.equation.program import Block, Names, Program
from dynsys_datasets.equation.resolve import compile_program, constant
from dynsys_datasets.equation.syntax import parse, parse_target

__all__ = ["Block", "Names", "Program", "compile_program", "constant", "latex", "parse", "parse_target"]
