"""From the plan of a note to corrected masks: region, corrector, guard, journal."""
