"""All pages of the wallet, in the portal and as widgets. Each has a file of its own; see `wallet_shell`."""

from __future__ import annotations

from fastapi import APIRouter

from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.config import WeftConfig
from appservices.chassis.pages import PageRoute, Pages
from appservices.chassis.signed_in import SessionGuard
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.proofs import Proofs
from wallet_appservice.web.history_page import HistoryPage
from wallet_appservice.web.more_page import MorePage
from wallet_appservice.web.overview_page import OverviewPage
from wallet_appservice.web.payment_page import PaymentPage
from wallet_appservice.web.proof_fields import PaymentReview
from wallet_appservice.web.receive_page import ReceivePage
from wallet_appservice.web.scan_page import ScanPage
from wallet_appservice.web.send_page import SendPage
from wallet_appservice.web.spending_page import SpendingPage
from wallet_appservice.web.statement_page import StatementPage
from wallet_appservice.web.wallet_shell import PATH, TEMPLATES, WalletShell

__all__ = ["PATH", "TEMPLATES", "wallet_pages"]


def wallet_pages(
    payments: Payments,
    guard: SessionGuard,
    pages: Pages,
    config: WeftConfig,
    tokens: Tokens,
    *,
    proofs: Proofs,
) -> APIRouter:
    router = APIRouter(prefix=PATH, route_class=PageRoute, include_in_schema=False)
    shell = WalletShell(
        payments=payments, guard=guard, pages=pages, config=config, tokens=tokens, clock=system_clock
    )
    for page in (
        OverviewPage(shell),
        SendPage(shell, PaymentReview(payments, proofs)),
        HistoryPage(shell),
        PaymentPage(shell),
        ReceivePage(shell),
        ScanPage(shell),
        StatementPage(shell),
        SpendingPage(shell),
        MorePage(shell),
    ):
        page.add_to(router)
    return router
