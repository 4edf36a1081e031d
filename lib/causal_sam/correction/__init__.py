"""Application of a plan to masks: region gate, corrector, guard and journal."""
