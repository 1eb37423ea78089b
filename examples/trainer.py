"""Fine-tunes a causal language model on lines of text inside transformers' Trainer, without a backward pass.

    python examples/trainer.py --model FOLDER_OR_ID --train train.txt --dev dev.txt --out out

Data, schedule, evaluation and checkpoints are transformers'; the step is FZOO's. Start it again after an interruption
and it resumes from the newest checkpoint, to the same bits. Needs transformers and accelerate beside zo.
"""

import argparse
from pathlib import Path

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

import zo
from zo.integrations.transformers import ZOTrainer


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fine-tune on lines of text with FZOO in transformers' Trainer."
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def rows(file: Path) -> list[dict]:
        return [dict(tokenizer(line)) for line in file.read_text(encoding="utf-8").splitlines() if line]

    trainer = ZOTrainer(
        AutoModelForCausalLM.from_pretrained(args.model),
        TrainingArguments(
            str(args.out),
            max_steps=args.steps,
            per_device_train_batch_size=16,
            learning_rate=args.lr,
            lr_scheduler_type="cosine",
            logging_steps=20,
            save_steps=50,
            save_total_limit=2,
            report_to=[],
        ),
        train_dataset=rows(args.train),
        eval_dataset=rows(args.dev),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        method=zo.FZOO,
    )
    checkpoint = get_last_checkpoint(str(args.out)) if args.out.is_dir() else None
    if checkpoint is None:
        print(f"before: loss {trainer.evaluate()['eval_loss']:.3f}")
    trainer.train(resume_from_checkpoint=checkpoint)
    print(f"after: loss {trainer.evaluate()['eval_loss']:.3f}, weights {trainer.zo.weights.sha256()}")
    trainer.save_model(str(args.out / "model"))
    trainer.create_model_card()


if __name__ == "__main__":
    main()
