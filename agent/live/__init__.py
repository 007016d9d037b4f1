"""The live context of calls: where it is kept, and how the tracker's facts get there."""
