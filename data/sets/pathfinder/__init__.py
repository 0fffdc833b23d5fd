"""Pathfinder: two circles, dashed paths, and whether one path joins the circles."""

from data.sets.pathfinder.source import SOURCES

__all__ = ["SOURCES"]
