"""Methods inside other people's training loops: one small adapter each, in a module of its own.

`limbeck.integrations.huggingface.DistillationTrainer` and `limbeck.integrations.lightning.LightningMethod`.
"""
