import pytest
from toy_plugin import ToyEnvConfig

from pixio_robot.common.errors import UserError
from pixio_robot.environments import describe_env, env_config_from, env_config_meant


def test_a_description_gives_the_config() -> None:
    config = env_config_from({"type": "pixio_toy", "image_size": 64, "camera_names": ["top"]})
    assert config == ToyEnvConfig(image_size=64, camera_names=["top"])
    assert config.features["pixels/top"].shape == (64, 64, 3)


def test_a_config_survives_its_description() -> None:
    config = ToyEnvConfig(action_size=5, camera_names=["top"], render_profile="pretty")
    description = describe_env(config)
    assert description["type"] == "pixio_toy"
    assert description["render_profile"] == "pretty"
    assert "features" not in description
    assert env_config_from(description) == config


def test_environments_of_installed_plugins_are_found() -> None:
    assert env_config_from({"type": "pixio_robosuite"}).task == "Lift"


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"type": "pixio_toi"}, "Did you mean 'pixio_toy'?"),
        ({"type": "pixio_toy", "imagesize": 3}, "Did you mean 'image_size'?"),
        ({"image_size": 3}, "has no 'type'"),
        ({"type": "pixio_toy", "episode_length": 0}, "episode_length must be at least 1."),
    ],
    ids=["type", "field", "no type", "value"],
)
def test_mistakes_are_answered(description: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        env_config_from(description)
    assert words in str(caught.value)


def test_a_policy_or_a_recording_meets_its_own_environment_unless_another_is_named() -> None:
    noted = describe_env(ToyEnvConfig(image_size=64))
    assert env_config_meant({}, noted, "policy.pt") == ToyEnvConfig(image_size=64)
    assert env_config_meant({"episode_length": 5}, noted, "policy.pt") == ToyEnvConfig(image_size=64, episode_length=5)
    assert env_config_meant({"type": "pixio_toy"}, noted, "policy.pt") == ToyEnvConfig()
    with pytest.raises(UserError, match="^policy.pt does not say which simulation it comes from: name one with env=…"):
        env_config_meant({"episode_length": 5}, None, "policy.pt")
