"""What can be known wrong about a training run's settings before gigabytes of weights are read."""

from lab import adapters, services, training
from lab.skeletons import name_modules, skeleton


def settle(settings):
    """Check `settings` against the model's skeleton, and put the full names of the target modules into them.

    settings.iters must be final. Raises LabError for layers or modules that the model does not have, a full fine-tuning of
    quantized weights, optimizer options that do not exist, a warm-up longer than the run, a service that is not installed.
    """
    services.check(settings.report_to)
    training.make_optimizer(settings)
    model, parameters = skeleton(settings.model), settings.lora_parameters
    if settings.fine_tune_type != "full" and parameters.get("keys"):
        settings.lora_parameters = {**parameters, "keys": name_modules(model, parameters["keys"])}
    adapters.add_layers(model, vars(settings))
