"""Scanning codes in Chromium: with a camera that sees a generated picture, and from a file."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
import segno
from PIL import Image
from playwright.async_api import Page, async_playwright, expect

from appservices.vocabulary.ids import UserId
from tests.browser.conftest import ARGUMENTS, CHROMIUM, SECONDS_MAX, OpenPage, sign_in
from tests.web_stack import WebStack
from wallet_appservice.payments.receive import payment_link

pytestmark = pytest.mark.asyncio(loop_scope="session")

CAMERA_SIZE: Final = (640, 480)
FRAMES: Final = 4


def photograph(text: str, size: tuple[int, int] = CAMERA_SIZE, share: float = 0.6) -> Image.Image:
    """A code in the middle of something grey."""
    file = io.BytesIO()
    segno.make(text, error="m").save(file, kind="png", scale=8, border=4)
    code = Image.open(file).convert("RGB")
    side = int(min(size) * share)
    picture = Image.new("RGB", size, (150, 150, 150))
    picture.paste(code.resize((side, side)), ((size[0] - side) // 2, (size[1] - side) // 2))
    return picture


def film(picture: Image.Image, path: Path) -> Path:
    """What Chromium's fake camera sees: a few frames of uncompressed video."""
    y, u, v = picture.convert("YCbCr").split()
    half = (picture.width // 2, picture.height // 2)
    frame = y.tobytes() + u.resize(half).tobytes() + v.resize(half).tobytes()
    header = f"YUV4MPEG2 W{picture.width} H{picture.height} F10:1 Ip C420jpeg\n".encode()
    path.write_bytes(header + (b"FRAME\n" + frame) * FRAMES)
    return path


@pytest_asyncio.fixture(loop_scope="session")
async def alice(stack: WebStack) -> UserId:
    alice = stack.user("alice")
    stack.user("bob")
    await stack.deposit(alice, 10_000)
    return alice


@pytest_asyncio.fixture(loop_scope="session")
async def camera_page(stack: WebStack, alice: UserId, tmp_path: Path) -> AsyncIterator[Page]:
    """Chromium with a camera that looks at a code of Bob's."""
    link = payment_link(
        stack.config.web.public_url,
        payee=stack.user("bob"),
        amount="12.50",
        currency="EUR",
        memo="two coffees",
    )
    seen = film(photograph(link), tmp_path / "camera.y4m")
    arguments = [
        *ARGUMENTS,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={seen}",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = await (await browser.new_context(viewport={"width": 390, "height": 844})).new_page()
        page.set_default_timeout(SECONDS_MAX * 1000)
        await sign_in(page, stack, alice)
        yield page
        await browser.close()


async def test_the_camera_reads_a_code_and_the_form_is_filled_in(stack: WebStack, camera_page: Page) -> None:
    page = camera_page
    await page.goto(stack.url + "/wallet/scan")
    await page.get_by_role("button", name="Use the camera").click()
    await page.wait_for_url("**/wallet/send?**")
    await expect(page.get_by_label("To", exact=True)).to_have_value("@bob:weft.example")
    await expect(page.get_by_label("Amount")).to_have_value("12.50")
    await expect(page.get_by_label("What for")).to_have_value("two coffees")
    assert await stack.balance_minor(stack.user("bob")) == 0, "nothing is paid before somebody has looked"


async def test_a_picture_of_a_code_is_read_without_a_camera(
    stack: WebStack, alice: UserId, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page()
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/scan")
    await page.get_by_role("button", name="Use the camera").click()
    await expect(page.get_by_text("The camera can’t be used here.")).to_be_visible()
    photograph("x", share=0.01).save(tmp_path / "nothing.png")
    await page.locator("input[type=file]").set_input_files(tmp_path / "nothing.png")
    await expect(page.get_by_text("No code was found in that picture.")).to_be_visible()
    (tmp_path / "no-picture.png").write_bytes(b"not a picture")
    await page.locator("input[type=file]").set_input_files(tmp_path / "no-picture.png")
    await expect(page.get_by_text("No code was found in that picture.")).to_be_visible()
    photograph("https://matrix.to/#/@bob:weft.example", size=(3000, 2000), share=0.2).save(
        tmp_path / "bob.jpg"
    )
    await page.locator("input[type=file]").set_input_files(tmp_path / "bob.jpg")
    await page.wait_for_url("**/wallet/send?**")
    await expect(page.get_by_label("To", exact=True)).to_have_value("@bob:weft.example")


async def test_ones_own_code_on_the_receive_page_is_read_by_the_scanner(
    stack: WebStack, alice: UserId, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(dark=True)
    # One page fades into the next; half of each is no code.
    await page.emulate_media(reduced_motion="reduce")
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/receive")
    await page.get_by_role("textbox", name="Amount").fill("3,20")
    await page.get_by_label("What for").fill("Brot")
    await page.get_by_role("button", name="Show the code").click()
    await page.wait_for_url("**/wallet/receive?**")
    await expect(page.get_by_text("€3.20")).to_be_visible()
    await page.locator(".qr-frame").screenshot(path=tmp_path / "code.png")
    bob = await open_page()
    await sign_in(bob, stack, stack.user("bob"))
    await bob.goto(stack.url + "/wallet/scan")
    await bob.locator("input[type=file]").set_input_files(tmp_path / "code.png")
    await bob.wait_for_url("**/wallet/send?**")
    await expect(bob.get_by_label("To", exact=True)).to_have_value("@alice:weft.example")
    await expect(bob.get_by_label("Amount")).to_have_value("3.20")
    await expect(bob.get_by_label("What for")).to_have_value("Brot")


async def test_a_pasted_link_needs_no_script(stack: WebStack, alice: UserId, open_page: OpenPage) -> None:
    page = await open_page(script=False)
    await sign_in(page, stack, alice)
    await page.goto(stack.url + "/wallet/scan")
    await page.get_by_label("Link or Matrix user").fill("https://elsewhere.example/wallet/send?payee=@bob:x")
    await page.get_by_role("button", name="Open").click()
    await expect(page.get_by_text("belongs to the wallet at elsewhere.example")).to_be_visible()
    await page.get_by_label("Link or Matrix user").fill("matrix:u/bob:weft.example")
    await page.get_by_role("button", name="Open").click()
    await expect(page.get_by_label("To", exact=True)).to_have_value("@bob:weft.example")
