"""K1: what would stop a run, or make its result worthless."""

from __future__ import annotations

from limbeck._findings.explained import Explained

ERRORS = (
    Explained(
        "K100",
        "A part of the recipe does not fit the others",
        "Building the networks or the method, or a dry step of it, was refused for a reason that has no code "
        "of its own; the message is the one that `limbeck distill` would give.",
        "The run would stop at the same place before its first step.",
        ("follow the fix of the message",),
    ),
    Explained(
        "K101",
        "A layer path names no layer that is called",
        "A path in `method.taps` names no module of the network, or one whose call was never seen in a dry "
        "batch. The nearest layers that are called are listed.",
        "The method would read nothing there. The run would stop before its first step.",
        ("take one of the near names", "`limbeck layers MODEL` lists all paths with their shapes"),
    ),
    Explained(
        "K102",
        "Layers of teacher and student do not go together",
        "The layers that the method pairs have shapes between which it has no adaptor: another number of "
        "dimensions, or sizes that it needs equal.",
        "Their difference is not defined. The run would stop before its first step.",
        (
            "name layers of the same kind on both sides: maps with maps, vectors with vectors",
            "leave `taps` out: layers that go together are proposed",
        ),
    ),
    Explained(
        "K103",
        "The teacher has another number of classes than the data",
        "The weights of a network end in another number of outputs than the data have classes, or it does "
        "not know a class of the data by name.",
        "Its answers cannot be compared with the student's, class by class.",
        (
            "use weights that were trained on the classes of these data",
            'take the data set that the teacher knows, or train one: weights = "train"',
        ),
    ),
    Explained(
        "K104",
        "The teacher is no better than chance",
        "On a sample of the validation data the teacher is right no more often than naming the most frequent "
        "class would be, and neither another order of classes nor other common statistics of the pixels "
        "explain it.",
        "The student would learn noise from it. Most often the weights belong to another network or other "
        "data.",
        (
            "check where the weights come from, and which data they were trained on",
            "teacher.accept_chance = true goes on with it, as an experiment",
        ),
    ),
    Explained(
        "K105",
        "The teacher's classes are in another order than the data's",
        "The teacher is wrong, but always in the same way: with its answers renamed it would be right. A "
        "common cause are folders named by numbers, which some libraries sort as text (1, 10, 2) and others "
        "by value (1, 2, 10).",
        "Every soft target would say the wrong class.",
        (
            "load the teacher from a `student/` folder, which has the names of its classes: they are matched "
            "by name",
            "bring the classes of the data into the order in which the teacher was trained",
        ),
    ),
    Explained(
        "K106",
        "The teacher was made for other statistics of its pixels",
        "Under other common statistics (imagenet, cifar10, cifar100, 0.5 and 0.5, none) the teacher is right "
        "clearly more often than under those that the recipe gives it.",
        "It runs, but on inputs that it was not trained on: its answers are worse than they could be, in "
        "silence.",
        ("set the `normalize` of the teacher as the message says; the student keeps its own",),
    ),
    Explained(
        "K107",
        "The teacher is the student",
        "Both networks have the same structure and the same weights.",
        "The student already answers as its teacher does, so there is nothing to learn. The same structure "
        "with other weights is fine: a student can learn from a teacher of its own kind.",
        (
            "leave `student.weights` out, so that the student begins anew",
            "give the teacher the weights of a larger network",
        ),
    ),
    Explained(
        "K108",
        "The same samples are in two splits",
        "More than 0.1 % of the samples of the smaller split are in the other one too, byte for byte. "
        "Rows of a table that repeat no more than training rows repeat each other are no finding.",
        "Scores on samples that were trained on say nothing about new ones; if they are in validation, the "
        "chosen epoch is the one that remembers best.",
        ("remove them from the training data", "split by what the samples come from, not by sample"),
    ),
    Explained(
        "K109",
        "A package is missing",
        "The recipe asks for something that an optional package does, and it is not installed.",
        "The run would stop before its first step.",
        ("the install command of the message", "or leave out what needs it"),
    ),
    Explained(
        "K110",
        "A cache of the teacher's answers is damaged, or another teacher's",
        "The folder in which the answers of this teacher are kept has a key that differs from what this run "
        "would store, or a file whose checksum is wrong.",
        "The run would stop when it reads it, possibly after hours.",
        (
            "delete the folder that the message names: the answers are written again",
            "`limbeck cache --verify FOLDER` reads every byte of it",
        ),
    ),
    Explained(
        "K111",
        "There is too little memory",
        "The dry steps, or what a whole run will hold, need more memory than there is.",
        "The run would end by the system's decision, without a message.",
        (
            "machine.micro_batch = 16: the same batch in parts",
            "a smaller batch_size, size of the pictures, or network",
        ),
    ),
    Explained(
        "K112",
        "There is too little disk",
        "What the run will write (checkpoints, weights, the teacher's answers) is more than is free.",
        "The run would stop when the disk is full.",
        (
            "make room, or put the run elsewhere: --output",
            "store less of the teacher: cache.dtype, cache.top_k, or cache.mode = off",
        ),
    ),
    Explained(
        "K114",
        "Pictures cannot be read",
        "All pictures were read once; some are damaged, or no pictures. Each is listed with its reason.",
        "The first of them would stop the run in its first epoch.",
        (
            "replace these files",
            "data.skip_unreadable = true leaves them out, and says how many",
        ),
    ),
    Explained(
        "K116",
        "The first steps end in a loss that is not finite",
        "A few steps on copies of the networks, at the recipe's learning rate, gave infinite values or none.",
        "The run would stop with the name of the term, after the teacher was trained.",
        (
            "a learning rate ten times smaller, or gradient clipping: train.clip_norm = 1.0",
            "smaller weights of the terms that are largest",
            'machine.precision = "fp32"',
        ),
    ),
    Explained(
        "K117",
        "Decoupled distillation needs at least three classes",
        "With two classes there is one class beside the right one, so how the others compare is no "
        "information: that term is 0 and so is its gradient.",
        "Half of the method would be silent.",
        ('variant = "soft"',),
    ),
)
