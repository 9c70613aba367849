"""Independent computations that the numbers are compared with."""


def lm_eval_lambada(model, path):
    """Accuracy and perplexity by lm-evaluation-harness, its lambada_openai task over a local file."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    task = {
        "task": "lambada_local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "output_type": "loglikelihood",
        "test_split": "test",
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' '+text.split(' ')[-1]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    }
    harness = HFLM(pretrained=model._model, tokenizer=model.tokenizer, batch_size=8)
    known = TaskManager(include_defaults=False)  # else it reads its 13,000 task files, for half a minute
    found = lm_eval.simple_evaluate(harness, tasks=[task], task_manager=known, bootstrap_iters=0, log_samples=False)
    scores = found["results"]["lambada_local"]
    return scores["acc,none"], scores["perplexity,none"]
