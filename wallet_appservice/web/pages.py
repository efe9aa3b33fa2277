"""All pages of the wallet, in the portal and as widgets. Each has a file of its own; see `wallet_shell`."""

from __future__ import annotations

from fastapi import APIRouter

from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.config import WeftConfig
from appservices.chassis.pages import PageRoute, Pages
from appservices.chassis.signed_in import SessionGuard
from wallet_appservice.payments.actions import Payments
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.people import People
from wallet_appservice.payments.protection import Protection
from wallet_appservice.web.asking_page import AskingPage
from wallet_appservice.web.code_page import CodePage
from wallet_appservice.web.confirm_page import ConfirmPage
from wallet_appservice.web.history_page import HistoryPage
from wallet_appservice.web.merchant_access_page import MerchantAccessPage
from wallet_appservice.web.merchant_order_page import MerchantOrderPage
from wallet_appservice.web.merchant_page import MerchantPage
from wallet_appservice.web.more_page import MorePage
from wallet_appservice.web.order_page import OrderPage
from wallet_appservice.web.overview_page import OverviewPage
from wallet_appservice.web.payment_page import PaymentPage
from wallet_appservice.web.pending_page import PendingPage
from wallet_appservice.web.receive_page import ReceivePage
from wallet_appservice.web.red_packet_page import RedPacketPage
from wallet_appservice.web.scan_page import ScanPage
from wallet_appservice.web.security_page import SecurityPage
from wallet_appservice.web.send_page import SendPage
from wallet_appservice.web.settings_page import SettingsPage
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
    desk: MerchantDesk,
    protection: Protection,
    people: People,
) -> APIRouter:
    router = APIRouter(prefix=PATH, route_class=PageRoute, include_in_schema=False)
    shell = WalletShell(
        payments=payments, guard=guard, pages=pages, config=config, tokens=tokens, clock=system_clock
    )
    pending = PendingPage(shell, people)
    for page in (
        OverviewPage(shell, pending),
        SendPage(shell, protection),
        HistoryPage(shell),
        PaymentPage(shell, people.refunds),
        ReceivePage(shell),
        ScanPage(shell),
        StatementPage(shell),
        SpendingPage(shell, protection.budgets),
        MorePage(shell),
        AskingPage(shell, people, protection),
        RedPacketPage(shell, people, protection),
        pending,
        SettingsPage(shell, people),
        SecurityPage(shell, protection),
        ConfirmPage(shell, protection),
        CodePage(shell, desk),
        OrderPage(shell, desk, protection),
        MerchantPage(shell, desk),
        MerchantOrderPage(shell, desk),
        MerchantAccessPage(shell, desk),
    ):
        page.add_to(router)
    return router
