//! The small helpers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::support::logs::LogBuffer;
use crate::support::search::TokenSearch;
use crate::support::wait::{comes_true, eventually};

const TOKEN: &str = "k7+Qw/9zTt3=8dE:x2Lm6pRa";

#[test]
fn a_token_is_found_in_every_spelling() {
    let search = TokenSearch::new(["another-token-altogether", TOKEN]);
    let percent = "k7%2BQw%2f9zTt3%3D8dE%3ax2Lm6pRa";
    let twice = percent.replace('%', "%25");
    let hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut texts = vec![
        TOKEN.to_owned(),
        percent.to_owned(),
        twice,
        hex.to_ascii_uppercase(),
        hex,
        TOKEN[..14].to_owned(),
        TOKEN[10..].to_owned(),
    ];
    for before in ["", "S", "SI", "SID", "SID="] {
        texts.push(STANDARD.encode(format!("{before}{TOKEN} and more")));
        texts.push(URL_SAFE_NO_PAD.encode(format!("{before}{TOKEN}")));
    }
    for text in texts {
        let found = search.find("log", format!("2027 INFO cookie={text}; path"));
        assert!(found.iter().any(|found| found.token == 1), "not found: {text}");
        assert!(found.iter().all(|found| found.token == 1));
    }
}

#[test]
fn innocent_texts_hold_no_token() {
    let search = TokenSearch::new([TOKEN]);
    assert_eq!(search.tokens(), 1);
    search.assert_none([("log", "k7+Qw/9zTt and SID=none of these %zz %"), ("empty", "")]);
}

#[test]
fn what_was_found_is_told_without_the_token() {
    let found = TokenSearch::new([TOKEN]).find("metrics", TOKEN);
    assert_eq!(found[0].to_string(), "token 0 (plain) stands in metrics");
}

#[test]
fn a_thread_captures_its_own_log() {
    let (log, guard) = LogBuffer::capture();
    tracing::debug!(session = 7, "a line");
    drop(guard);
    tracing::info!("not captured");
    assert!(log.contains("a line") && log.contains("session=7"));
    assert!(!log.contains("not captured"));
    log.clear();
    assert_eq!(log.text(), "");
}

#[test]
fn many_threads_log_to_the_global_buffer() {
    let log = LogBuffer::global();
    let threads: Vec<_> =
        (0..4).map(|n| std::thread::spawn(move || tracing::warn!("thread number {n} was here"))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    for n in 0..4 {
        assert!(log.contains(&format!("thread number {n} was here")));
    }
}

#[tokio::test]
async fn a_condition_is_awaited_up_to_its_deadline() {
    let mut looks = 0;
    eventually(Duration::from_secs(5), async || {
        looks += 1;
        looks == 4
    })
    .await;
    assert_eq!(looks, 4);
    assert!(!comes_true(Duration::from_millis(20), async || false).await);
}
