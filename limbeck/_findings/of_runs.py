"""R1: what a finished run's figures do not carry, or what in them disappoints."""

from __future__ import annotations

from limbeck._findings.explained import Explained

OF_RUNS = (
    Explained(
        "R101",
        "One seed",
        "Only one run of this setting is behind the figures.",
        "Another seed gives other figures. Differences of a point or two can be chance.",
        ("`limbeck compare RECIPE --seeds 5`; the teacher's answers are stored already",),
    ),
    Explained(
        "R102",
        "A tie within chance",
        "The interval of the difference between the distilled student and the one that it is compared with "
        "holds zero.",
        "It is not shown which of the two is better.",
        ("more seeds", "a larger test set"),
    ),
    Explained(
        "R103",
        "The int8 file is slower",
        "The int8 file needs more time for a sample than the float file, in the same runtime on the same "
        "processor.",
        "It is smaller, but where time counts it is a loss. Int8 needs instructions that not every processor "
        "has, and layers that are large enough.",
        (
            "use the float file on this processor",
            "measure on the device itself: `limbeck measure FILE`",
        ),
    ),
    Explained(
        "R104",
        "The int8 file is worse",
        "The int8 file scores more than a point lower than the student that it was made from.",
        "Part of what was gained is lost again.",
        ("use the float file", "another training sample to calibrate on, or fewer int8 layers"),
    ),
    Explained(
        "R105",
        "Training stopped while it still improved",
        "The best validation score was reached in the last epochs.",
        "More epochs may give more; a comparison of methods at this budget is one of their speed.",
        (
            "go on: `limbeck distill RUN/recipe.toml --set student.weights=RUN/student`",
            "or start anew with more epochs, whose schedule then fits",
        ),
    ),
    Explained(
        "R106",
        "The student is no better than alone",
        "The distilled student scores no higher than the same student trained without a teacher.",
        "In this setting the teacher did not help.",
        (
            "`limbeck check RECIPE`: temperature, sizes of the loss terms, normalisation of the teacher",
            "another method, a better teacher, more epochs, or fewer labels, where teachers help most",
        ),
    ),
    Explained(
        "R107",
        "The last epoch is clearly worse than the chosen one",
        "The validation score fell by more than two points after the chosen epoch.",
        "The student over-fits or training is unsteady, so the chosen score profits from a lucky epoch.",
        ("a lower learning rate or a schedule that ends near 0", "augmentation, or fewer epochs"),
    ),
    Explained(
        "R108",
        "A file for the device was not kept",
        "The file did not compute the same as the student within the tolerance, or did not run at some batch "
        "size.",
        "There is nothing to deploy in that format.",
        ("the reason stands in the table of files", "`limbeck export RUN --to torch`"),
    ),
    Explained(
        "R109",
        "The student has overtaken its teacher",
        "The distilled student scores higher than the teacher.",
        "The teacher is no upper bound any more, so a better one may give more. It can also be chance.",
        ("a better teacher", "more seeds"),
    ),
    Explained(
        "R110",
        "The student is too sure of itself",
        "Its confidence is on average more than ten points away from how often it is right (expected "
        "calibration error).",
        "Whoever uses the probabilities, as with a threshold, is misled; the classes that are named are not "
        "affected.",
        ("a temperature on the logits, fitted on validation data", "a larger soft weight"),
    ),
)
