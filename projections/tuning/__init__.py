"""What companies sent to tune with, and by which names it is asked for."""
