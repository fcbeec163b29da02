//! What an operator reads: one access line a request, one audit line a sign-in, an end and an administrative act.

use crate::setup::{BY_HEADER, POLICY, World, post_login, who};
use crate::support::logs::LogBuffer;
use crate::support::wait::{PATIENCE, eventually};

/// The lines since `len` that hold all of `words`.
fn lines(len: usize, words: &[&str]) -> Vec<String> {
    let text = String::from_utf8_lossy(&LogBuffer::global().since(len)).into_owned();
    text.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
}

async fn told(len: usize, words: &[&str]) {
    let condition = async || lines(len, words).len() == 1;
    assert!(
        crate::support::wait::comes_true(PATIENCE, condition).await,
        "{words:?}: {:?}",
        lines(len, words)
    );
}

#[tokio::test]
async fn a_request_leaves_one_access_line_without_its_query() {
    let len = LogBuffer::global().len();
    let world = World::new().await;
    let browser = world.signed_in("lea-of-the-access-line").await;
    let id = world.only_session_of("lea-of-the-access-line").id.to_string();
    browser.fetch("/status?code=418&secret=hunter2").await;
    let words = [" access: ", "app=\"app\"", "method=\"GET\"", "path=\"/status\"", "status=418", &id];
    told(len, &words).await;
    assert!(lines(len, &["hunter2"]).is_empty());
    browser.fetch("/page?SID=not-a-token").await;
    world.revoke("lea-of-the-access-line").await;
    browser.fetch("/poll").await;
    told(len, &[" access: ", "path=\"/poll\"", "status=401", "outcome=\"ended\"", &id]).await;
}

#[tokio::test]
async fn sign_ins_ends_and_held_back_sessions_are_audited() {
    let len = LogBuffer::global().len();
    let policy = POLICY.replace("max_concurrent = 2", "max_concurrent = 1\non_limit = \"refuse\"");
    let world = World::with(|s| s.identity_headers = true, "", BY_HEADER, &policy).await;
    let user = "ida-of-the-audit";
    let first = world.signed_in(user).await;
    let named = format!("user=\"{user}\"");
    told(len, &[" audit: ", "act=\"signed_in\"", &named, "tenant=\"default\"", "app=\"app\""]).await;
    post_login(&world.browser(), user).await;
    told(len, &[" audit: ", "act=\"held_back\"", &named]).await;
    world.revoke(user).await;
    told(len, &[" audit: ", "act=\"ended\"", &named, "reason=\"revoked\"", "by=\"test\""]).await;
    assert_eq!(who(&first).await, None);
    world.pass(121);
    told(len, &[" audit: ", "act=\"ended\"", &named, "reason=\"max_concurrent\""]).await;
}

#[tokio::test]
async fn tokens_in_urls_and_in_what_cannot_be_read_stand_in_no_line() {
    let len = LogBuffer::global().len();
    let world = World::new().await;
    let browser = world.signed_in("uma-of-the-urls").await;
    let token = browser.cookie("SID").unwrap();
    for target in [
        format!("/page?SID={token}"),
        format!("/me;SID={token}"),
        format!("/me;jsessionid={token}"),
        format!("/%zz{token}"),
        format!("/.tenure/status?x={token}"),
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: app.localhost\r\nReferer: http://app.localhost/?SID={token}\r\n\
             Connection: close\r\n\r\n"
        );
        browser.raw(request).await;
    }
    eventually(PATIENCE, async || !lines(len, &[" access: ", "path=\"/page\""]).is_empty()).await;
    // The app's own search sees to the rest when it ends.
    assert_eq!(lines(len, &[&token]), Vec::<String>::new());
}
