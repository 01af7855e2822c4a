"""Money of one account: ether for gas, RLC in the wallet, RLC staked in the hub (free and locked)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cloister.errors import Conflict, InputError
from cloister.protocol.codec import Address
from cloister.protocol.units import Nrlc, format_rlc, parse_nrlc
from cloister.sdk.connection import Connection


@dataclass(frozen=True, slots=True)
class Balances:
    """``wei`` of ether; all others in nRLC. ``stake`` is free to spend or withdraw, ``locked`` is bound in open deals."""

    address: Address
    wei: int
    wallet: Nrlc
    stake: Nrlc
    locked: Nrlc

    def to_json(self) -> dict[str, object]:
        """As JSON for machines."""
        return asdict(self)


class Account:
    """Deposits, withdrawals and balances."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def balances(self, address: str | None = None) -> Balances:
        """Balances of ``address`` (default: the wallet's own), all at one block."""
        connection = self._connection
        who = Address(address) if address is not None else connection.address
        block = connection.rpc.block_number()
        account = connection.hub.account(who, block=block)
        return Balances(
            address=who,
            wei=connection.rpc.balance(who, block=block),
            wallet=Nrlc(connection.rlc.balance_of(who, block=block)),
            stake=Nrlc(account.stake),
            locked=Nrlc(account.locked),
        )

    def deposit(self, amount: str | int) -> Balances:
        """Move RLC from the wallet into the hub's account, where deals are paid from.

        Raises:
            Conflict: the wallet holds less.
        """
        connection = self._connection
        value = self._positive(amount)
        held = connection.rlc.balance_of(connection.address, block="latest")
        if held < value:
            raise Conflict(
                f"deposit of {format_rlc(value)} exceeds the wallet's {format_rlc(held)} ({connection.address})",
                hint="get RLC first, or deposit less",
            )
        call = connection.rlc.approve_and_call(connection.network.contracts.hub, value, b"")
        connection.sender.send(call, intent=connection.sender.fresh_intent("deposit"))
        return self.balances()

    def withdraw(self, amount: str | int) -> Balances:
        """Move free stake back to the wallet.

        Raises:
            Conflict: less is free.
        """
        connection = self._connection
        value = self._positive(amount)
        account = connection.hub.account(connection.address, block="latest")
        if account.stake < value:
            raise Conflict(
                f"withdrawal of {format_rlc(value)} exceeds the free stake of {format_rlc(account.stake)} ({connection.address})",
                hint=f"{format_rlc(account.locked)} are locked in open deals" if account.locked else "withdraw less",
            )
        connection.sender.send(connection.hub.withdraw(value), intent=connection.sender.fresh_intent("withdraw"))
        return self.balances()

    @staticmethod
    def _positive(amount: str | int) -> Nrlc:
        value = parse_nrlc(amount)
        if value <= 0:
            raise InputError(f"not a positive amount: {amount}", hint='for example "0.1 RLC"')
        return value
