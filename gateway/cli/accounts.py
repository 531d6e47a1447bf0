"""`gateway user` and `gateway db`: what needs the database and no running gateway."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.terminal import CONFIG, run_to_end
from gateway.config import load


@click.group()
def user() -> None:
    """Users, also while the gateway is stopped.

    \b
    Examples:
      gateway user list
      gateway user add alice --role viewer
      gateway user passwd admin
    """


_PASSWORD = click.password_option(
    envvar="GATEWAY_USER_PASSWORD", help="Asked for when not given; GATEWAY_USER_PASSWORD works too."
)


@user.command("add")
@click.argument("username")
@click.option("--role", "roles", multiple=True, help="Role of the user; may be repeated.")
@_PASSWORD
@CONFIG
def user_add(username: str, roles: tuple[str, ...], password: str, config_path: Path) -> None:
    """Add a user.

    \b
    Example:
      gateway user add alice --role administrator
    """
    from gateway.operations.accounts import add_user  # noqa: PLC0415 - as in `run`

    run_to_end(add_user(load(config_path), username, password, roles))
    click.echo(f"user {username} added")


@user.command("passwd")
@click.argument("username")
@_PASSWORD
@CONFIG
def user_passwd(username: str, password: str, config_path: Path) -> None:
    """Set a user's password; the user's tokens end.

    \b
    Example:
      gateway user passwd admin
    """
    from gateway.operations.accounts import set_password  # noqa: PLC0415 - as in `run`

    run_to_end(set_password(load(config_path), username, password))
    click.echo(f"password of {username} changed")


@user.command("list")
@CONFIG
def user_list(config_path: Path) -> None:
    """List users with their roles.

    \b
    Example:
      gateway user list
    """
    from gateway.operations.accounts import list_users  # noqa: PLC0415 - as in `run`

    for line in run_to_end(list_users(load(config_path))):
        click.echo(line)


@click.group()
def db() -> None:
    """The database.

    \b
    Example:
      gateway db upgrade
    """


@db.command("upgrade")
@CONFIG
def db_upgrade(config_path: Path) -> None:
    """Bring the database's schema to this version; a start does the same.

    \b
    Example:
      gateway db upgrade -c config.toml
    """
    from gateway.operations.accounts import upgrade  # noqa: PLC0415 - as in `run`

    click.echo(run_to_end(upgrade(load(config_path))))
