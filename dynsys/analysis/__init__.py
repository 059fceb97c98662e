"""Analysis of a system or a series: Lyapunov exponents, Kaplan-Yorke dimension, spectra, autocorrelation."""

from dynsys.analysis.lyapunov import LyapunovSpectrum, kaplan_yorke_dimension, lyapunov_spectrum
from dynsys.analysis.spectrum import autocorrelation, dominant_period, power_spectrum

__all__ = ["LyapunovSpectrum", "autocorrelation", "dominant_period", "kaplan_yorke_dimension", "lyapunov_spectrum", "power_spectrum"]
