"""K2: what lets a run finish, and is worth a second thought before it starts."""

from __future__ import annotations

from limbeck._findings.explained import Explained

WARNINGS = (
    Explained(
        "K201",
        "The teacher is worse than the student",
        "The student begins with weights that score higher on a sample of the validation data than the "
        "teacher does.",
        "A student seldom gains from a teacher that knows less, and often loses.",
        ("a better teacher", "the student's weights as the teacher's, and a smaller student"),
    ),
    Explained(
        "K202",
        "A few samples are in two splits",
        "Some samples are in two splits byte for byte, at most 0.1 % of the smaller one. Well-known sets "
        "have such samples, CIFAR-100 among them.",
        "Scores are too good by at most that share.",
        ("remove them from the training data if every tenth of a point counts",),
    ),
    Explained(
        "K203",
        "The temperature leaves nothing to learn",
        "Softened by the recipe's temperature, the teacher's answers are all but certain (so they are the "
        "labels again), or all classes are equally likely.",
        "The soft targets carry no more than the labels do, or nothing. In standardised logits a usual "
        "temperature is 2, else 2 to 8.",
        ("temperature = 4.0",),
    ),
    Explained(
        "K204",
        "The kept classes hold little of the probability",
        "With `cache.top_k`, the classes that are kept hold less than half of the teacher's softened "
        "probability; the rest is kept as one number.",
        "Most of what the teacher says about similar classes is dropped.",
        ("a larger cache.top_k, or none", "a lower temperature"),
    ),
    Explained(
        "K206",
        "The student is larger than its teacher",
        "The student has more parameters.",
        "What comes out is bigger than what went in. That can be meant: a weak teacher may help a large "
        "student that has few labels.",
        ("exchange the two models",),
    ),
    Explained(
        "K207",
        "Loss terms pull with very different strength",
        "The weighted gradients of two loss terms differ more than 1,000 times in size at the student's "
        "parameters, before training. A term that has no effect yet is not counted.",
        "The smaller one is hardly felt. Papers may mean it: weights belong to the size of the networks and "
        "data that they were tuned on.",
        ("change the weight that the message names", "look at the unweighted terms of the first epochs"),
    ),
    Explained(
        "K208",
        "Samples look different each time they are read",
        "Some samples were read twice in the same view and differ: a transform of the user's holds a "
        "generator of its own, which draws on with every read.",
        "Each worker process draws the same numbers, results depend on the number of workers, a resumed run "
        "is another one, and stored answers of the teacher do not belong to what the student sees.",
        (
            "let the transform draw from the global generators of torch, numpy or random, which are seeded "
            "by sample and view",
            "or use [data] augment",
        ),
    ),
    Explained(
        "K209",
        "A class has no sample in a split",
        "Some class of the training data is absent from validation or test.",
        "Its score is not known, and a checkpoint that has forgotten it can be chosen.",
        ("more samples there", "leave the folder out and let [data] validation draw the split by class"),
    ),
    Explained(
        "K210",
        "Batch normalisation sees parts of the batch",
        "Memory or `machine.micro_batch` splits the batch, and a network that trains has batch "
        "normalisation: its statistics are of a part.",
        "Results differ from those of the whole batch, the more the smaller the parts are.",
        ("a micro_batch of at least 32", "a smaller batch_size, which then is the whole"),
    ),
    Explained(
        "K211",
        "Memory, disk or time will be nearly used up",
        "The run will take more than 80 % of the memory or of the free disk.",
        "Something else that runs can end it.",
        ("close what else runs", "machine.micro_batch, or less stored of the teacher"),
    ),
)
