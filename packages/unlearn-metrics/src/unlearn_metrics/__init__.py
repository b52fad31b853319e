"""Metrics, detectors, classifiers and feature extractors for images that exist; nothing here draws one."""
