"""The report of a run: one HTML page that needs no network, and still pictures for papers."""

from dynsys.report.content import Histogram, History, ReportContent, Spectrum
from dynsys.report.figures import hero, static_figures
from dynsys.report.page import render, write_report

__all__ = ["Histogram", "History", "ReportContent", "Spectrum", "hero", "render", "static_figures", "write_report"]
