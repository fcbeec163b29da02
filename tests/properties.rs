//! The laws of DESIGN section 2 as properties of the pure core. Regressions are kept beside this file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

use std::num::NonZeroU32;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use tenure::session::activity::Kind;
use tenure::session::chosen::{Choice, Chosen, Holder};
use tenure::session::cookie::{Attributes, RequestCookies, deletion, read_set_cookie};
use tenure::session::gate::{
    Action, Evidence, Facts, Place, Rules, Standing, Unseen, Weighed, decide, weigh,
};
use tenure::session::identity::{Identity, UserCase, normal_name};
use tenure::session::layers::{Bounds, Layer, Layers, Limit, Range, Subject};
use tenure::session::path::{normalise, strip_query};
use tenure::session::policy::{Admission, Rival, admit};
use tenure::session::profile::{CookieKind, CookieRule, Extract, NamePattern};
use tenure::session::record::{
    AppId, CookieShape, End, MAX_TOKENS, Mode, NewToken, Session, State, Terms, Visitor,
};
use tenure::session::return_to::{is_safe, login_location};
use tenure::session::{
    EndReason, Moment, OnLimit, Policy, SessionId, Span, Times, TokenKey, Verdict, deadline, judge,
};

fn moment() -> impl Strategy<Value = Moment> {
    (0..10_000_u64).prop_map(Moment::from_unix_ms)
}

fn span() -> impl Strategy<Value = Option<Span>> {
    proptest::option::of((0..5_000_u64).prop_map(Span::from_ms))
}

fn on_limit() -> impl Strategy<Value = OnLimit> {
    prop_oneof![Just(OnLimit::EndOldest), Just(OnLimit::EndIdlest), Just(OnLimit::Ask), Just(OnLimit::Refuse)]
}

fn policy() -> impl Strategy<Value = Policy> {
    (span(), span(), proptest::option::of(1..6_u32), on_limit()).prop_map(|(idle, life, max, on_limit)| {
        Policy {
            idle_timeout: idle,
            force_relogin: life,
            max_concurrent: max.and_then(NonZeroU32::new),
            on_limit,
        }
    })
}

fn times() -> impl Strategy<Value = Times> {
    (moment(), proptest::option::of(moment()), moment()).prop_map(
        |(created_at, signed_in_at, last_active_at)| Times { created_at, signed_in_at, last_active_at },
    )
}

fn rivals() -> impl Strategy<Value = Vec<Rival>> {
    vec((any::<u128>(), moment(), moment()), 0..12).prop_map(|list| {
        let rival = |(id, signed_in_at, last_active_at)| Rival {
            id: SessionId::from_u128(id),
            signed_in_at,
            last_active_at,
        };
        list.into_iter().map(rival).collect()
    })
}

fn rules() -> Vec<CookieRule> {
    let rule = |name: &str, kind, extract| CookieRule { name: NamePattern::parse(name), kind, extract };
    vec![
        rule("JSESSIONID", CookieKind::Session, Extract::WithoutRoute),
        rule("php_sess", CookieKind::Session, Extract::Whole),
        rule("remember*", CookieKind::Companion, Extract::Whole),
    ]
}

fn standing() -> impl Strategy<Value = Standing> {
    let id = || (0..3_u128).prop_map(SessionId::from_u128);
    let reason = || proptest::sample::select(EndReason::ALL.to_vec());
    prop_oneof![
        Just(Standing::Unseen),
        Just(Standing::Stale),
        Just(Standing::Replaced),
        Just(Standing::Unavailable),
        (id(), any::<bool>()).prop_map(|(session, alias)| Standing::Live { session, alias }),
        id().prop_map(|session| Standing::Pending { session }),
        (id(), reason(), any::<bool>(), any::<bool>()).prop_map(|(session, reason, signed_in, told)| {
            Standing::Ended { session, reason, signed_in, told }
        }),
    ]
}

fn facts() -> impl Strategy<Value = Facts> {
    let kind = prop_oneof![Just(Kind::Navigation), Just(Kind::WebSocket), Just(Kind::Fetch)];
    let place = prop_oneof![
        Just(Place::Login),
        Just(Place::SignIn),
        Just(Place::Logout),
        Just(Place::Public),
        Just(Place::Other)
    ];
    (kind, place, any::<bool>(), any::<bool>()).prop_map(|(kind, place, activity, credentials)| Facts {
        kind,
        place,
        activity,
        credentials,
    })
}

fn gate_rules() -> impl Strategy<Value = Rules> {
    let unseen = prop_oneof![Just(Unseen::Refuse), Just(Unseen::Adopt)];
    (unseen, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(unseen, pass, enforce, has_login)| {
        Rules { unseen, pass_unidentified: pass, enforce, has_login }
    })
}

/// Ways in which servers read a `Cookie` header: all that FIELD F11 and R4 name.
fn as_an_app_reads(header: &str) -> Vec<(String, String)> {
    let mut read = Vec::new();
    let php = |name: &str| {
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
        let decoded = decoded.split('\0').next().unwrap_or_default();
        decoded.trim().split('[').next().unwrap_or_default().replace(['.', ' '], "_")
    };
    // `;` alone, RFC 2965's comma as well, and white space as Python's `http.cookies` has it.
    for separators in [&[';'][..], &[';', ','][..], &[';', ' '][..]] {
        for pair in header.split(separators) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.trim().trim_matches('"').to_owned();
            read.push((name.trim().to_lowercase(), value.clone()));
            read.push((php(name).to_lowercase(), value));
        }
    }
    // Quoted strings may hold `;`: what stands inside is text, what stands outside is pairs.
    let mut outside = String::new();
    let mut quoted = false;
    for c in header.chars() {
        quoted ^= c == '"';
        if !quoted {
            outside.push(c);
        }
    }
    for pair in outside.split(';') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        read.push((name.trim().to_lowercase(), value.trim().trim_matches('"').to_owned()));
    }
    read
}

fn cookie_header() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "JSESSIONID",
        "jsessionid",
        "php_sess",
        "php.sess",
        "php sess",
        "php[sess",
        "%70hp_sess",
        "php_sess%00",
        "$Version",
        "remember_me",
        "theme",
        "=",
        "=",
        ";",
        "; ",
        ",",
        "\"",
        " ",
        "dead",
        "dead.node1",
        "dark",
        "\t",
        "[]",
        "$",
    ]);
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Keys that the steps of a session are drawn from.
const KEYS: u8 = 6;

/// Anything that can happen to a session's record.
#[derive(Clone, Debug)]
enum Step {
    Touch,
    Present(u8),
    Rotate(u8, u8),
    SignIn(u8),
    HoldBack,
    Admit,
    Adopt(Policy, Mode),
    ChangeRoles(Policy),
    End(EndReason),
    Forget,
    ForgetCookie,
}

impl Step {
    fn take(&self, session: &mut Session, now: Moment) {
        let identity =
            || Arc::new(Identity { user: "ann".into(), tenant: "t".into(), roles: vec![], source: 0 });
        let policy = session.policy;
        match self {
            Self::Touch => drop(session.touch(now)),
            Self::Present(n) => drop(session.presented(TokenKey([*n; 16]), now)),
            Self::Rotate(new, carried) => {
                session.rotate(&[session_token(*new)], TokenKey([*carried; 16]), Span::from_ms(10), now);
            }
            // The store asks in its critical section whether the session is over; the record's own part comes after.
            Self::SignIn(n) if !session.is_over() => {
                session.replace(&[session_token(*n)], Span::from_ms(10), now);
                session.sign_in(identity(), policy, now);
            }
            Self::HoldBack if !session.is_over() => {
                session.state = State::Pending(now.plus(Span::from_ms(50)))
            }
            Self::Admit if matches!(session.state, State::Pending(_)) => session.admit(policy, now),
            Self::SignIn(_) | Self::HoldBack | Self::Admit => {}
            Self::Adopt(policy, mode) => {
                let epoch = session.epoch.wrapping_add(1);
                session.adopt(Terms { policy: *policy, mode: *mode, epoch }, now);
            }
            Self::ChangeRoles(policy) => drop(session.change_roles(identity(), *policy, now)),
            Self::End(reason) => drop(session.end(*reason, None, now)),
            Self::Forget => drop(session.forget()),
            Self::ForgetCookie => drop(session.forget_cookie("sid")),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let mode = || prop_oneof![Just(Mode::Enforce), Just(Mode::Observe)];
    prop_oneof![
        3 => Just(Step::Touch),
        2 => (0..KEYS).prop_map(Step::Present),
        2 => (0..KEYS, 0..KEYS).prop_map(|(new, carried)| Step::Rotate(new, carried)),
        1 => (0..KEYS).prop_map(Step::SignIn),
        1 => Just(Step::HoldBack),
        1 => Just(Step::Admit),
        2 => (policy(), mode()).prop_map(|(policy, mode)| Step::Adopt(policy, mode)),
        1 => policy().prop_map(Step::ChangeRoles),
        1 => proptest::sample::select(EndReason::ALL.to_vec()).prop_map(Step::End),
        1 => Just(Step::Forget),
        1 => Just(Step::ForgetCookie),
    ]
}

fn session_token(n: u8) -> NewToken {
    let shape = CookieShape { name: "sid".into(), attributes: Attributes::default() };
    NewToken { key: TokenKey([n; 16]), kind: CookieKind::Session, shape: Arc::new(shape) }
}

fn layer() -> impl Strategy<Value = Layer> {
    fn maybe<T: std::fmt::Debug + Clone>(
        value: impl Strategy<Value = T> + Clone,
    ) -> impl Strategy<Value = Option<Limit<T>>> {
        proptest::option::of(prop_oneof![value.prop_map(Limit::At), Just(Limit::Off)])
    }
    let spans = || (1..5_000_u64).prop_map(Span::from_ms);
    let counts = (1..6_u32).prop_map(|n| NonZeroU32::new(n).unwrap());
    (maybe(spans()), maybe(spans()), maybe(counts), proptest::option::of(on_limit())).prop_map(
        |(idle_timeout, force_relogin, max_concurrent, on_limit)| Layer {
            idle_timeout,
            force_relogin,
            max_concurrent,
            on_limit,
        },
    )
}

/// Everyone who has a say about Ann of acme, an admin and a guest, at the app crm.
fn holders() -> [Holder; 5] {
    [
        Holder::App("crm".into()),
        Holder::Tenant("acme".into()),
        Holder::Role("admin".into()),
        Holder::Role("guest".into()),
        Holder::User { tenant: "acme".into(), user: "ann".into() },
    ]
}

/// The file's layers, one for each of [`holders`].
fn filed(layers: &[Layer], bounds: Bounds) -> Layers {
    let mut filed = Layers { bounds, ..Layers::default() };
    for (holder, layer) in holders().into_iter().zip(layers) {
        match holder {
            Holder::App(name) => filed.apps.insert(name, *layer),
            Holder::Tenant(name) => filed.tenants.insert(name, *layer),
            Holder::Role(name) => filed.roles.insert(name, *layer),
            Holder::User { tenant, user } => filed.users.insert((tenant, user), *layer),
        };
    }
    filed
}

fn fresh_session() -> Session {
    let policy = Policy { idle_timeout: Some(Span::from_ms(200)), ..Policy::default() };
    let terms = Terms { policy, mode: Mode::Enforce, epoch: u32::MAX - 3 };
    let visitor = Visitor { ip: [127, 0, 0, 1].into(), user_agent: "x".into() };
    let mut session =
        Session::new(SessionId::from_u128(1), AppId(0), terms, visitor, Moment::from_unix_ms(0));
    session.replace(&[session_token(0)], Span::ZERO, Moment::from_unix_ms(0));
    session
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_was_set_counts_as_if_the_file_said_it_in_the_same_place(
        file in vec(layer(), 5), set in vec(proptest::option::of((layer(), any::<bool>())), 5), max in 1..5_000_u64,
    ) {
        let idle_timeout = Range { min: None, max: Some(Span::from_ms(max)) };
        let bounds = Bounds { idle_timeout, ..Bounds::default() };
        let mut layers = filed(&file, bounds);
        let before = layers.clone();
        let mut chosen = Chosen::default();
        for (holder, set) in holders().iter().zip(&set) {
            let choice = set.map(|(layer, bounded)| Choice { layer, bounded });
            chosen = chosen.changed(holder, choice).unwrap();
        }
        layers.chosen = Arc::new(chosen);
        let merged: Vec<Layer> = holders().iter().map(|holder| layers.comes_to(holder)).collect();
        let roles = ["admin".to_owned(), "guest".to_owned()];
        let ann = Subject { app: "crm", tenant: Some("acme"), user: Some("ann"), roles: &roles };
        prop_assert_eq!(layers.effective(&ann), filed(&merged, bounds).effective(&ann));
        for (at, ((holder, file), set)) in holders().iter().zip(&file).zip(&set).enumerate() {
            // By hand: what was set, else the file's; moved within the bounds where a tenant chose it.
            let wish = set.and_then(|(layer, _)| layer.idle_timeout);
            let is_tenant = matches!(holder, Holder::Tenant(_));
            let clamped = is_tenant || (wish.is_some() && set.is_some_and(|(_, bounded)| bounded));
            let idle = wish.or(file.idle_timeout);
            let idle = if clamped { idle.map(|idle| idle.min(Limit::At(Span::from_ms(max)))) } else { idle };
            prop_assert_eq!(merged[at].idle_timeout, idle);
            let on_limit = set.and_then(|(layer, _)| layer.on_limit).or(file.on_limit);
            prop_assert_eq!(merged[at].on_limit, on_limit);
        }
        for holder in holders() {
            layers.chosen = Arc::new(layers.chosen.changed(&holder, None).unwrap());
        }
        prop_assert_eq!(layers, before, "taken back, nothing is left of it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn law_1_a_session_lives_strictly_between_its_times_and_their_limits(policy in policy(), times in times(), any_time in moment(), at_a_limit in any::<bool>()) {
        let line = deadline(&policy, &times);
        // Random moments hardly ever meet a limit to the millisecond, where the rule shows.
        let now = if at_a_limit && line.at() != Moment::MAX { line.at() } else { any_time };
        let since = |moment: Moment| now.unix_ms().checked_sub(moment.unix_ms());
        let spent = |moment: Moment, span: Option<Span>| {
            span.is_some_and(|span| since(moment).is_some_and(|elapsed| elapsed >= span.as_ms()))
        };
        let idle = spent(times.last_active_at, policy.idle_timeout);
        let old = spent(times.signed_in_at.unwrap_or(times.created_at), policy.force_relogin);
        match judge(line, now) {
            Verdict::Live => prop_assert!(!idle && !old),
            Verdict::Over(EndReason::ForceRelogin, at) => prop_assert!(old && at <= now),
            Verdict::Over(EndReason::IdleTimeout, at) => prop_assert!(idle && at <= now),
            Verdict::Over(reason, _) => prop_assert!(false, "{reason} is no matter of time"),
        }
    }

    #[test]
    fn law_2_nothing_leads_back_from_an_end(steps in vec(step(), 1..40), moves in vec(0..90_u64, 40)) {
        let (mut session, mut now) = (fresh_session(), Moment::from_unix_ms(0));
        let mut end: Option<End> = None;
        for (step, wait) in steps.iter().zip(moves) {
            now = now.plus(Span::from_ms(wait));
            session.settle(now);
            step.take(&mut session, now);
            if let Some(end) = &end {
                prop_assert_eq!(session.ended(), Some(end), "after {:?}", step);
                prop_assert!(session.is_over() && !session.is_live(now) && session.as_rival(now).is_none());
                for n in 0..KEYS {
                    let live = matches!(session.standing(TokenKey([n; 16]), now), Standing::Live { .. } | Standing::Pending { .. });
                    prop_assert!(!live && !session.is_live_by(TokenKey([n; 16]), now));
                }
            }
            end = session.ended().cloned();
        }
    }

    #[test]
    fn law_4_rotation_moves_no_time_and_keeps_a_value_in_use(steps in vec(step(), 0..12), rotations in vec((0..KEYS, 0..KEYS, 0..30_u64), 1..12)) {
        let (mut session, mut now) = (fresh_session(), Moment::from_unix_ms(0));
        for step in &steps {
            step.take(&mut session, now);
        }
        for (new, carried, wait) in rotations {
            now = now.plus(Span::from_ms(wait));
            session.settle(now);
            let before = (session.id, session.times, session.deadline, session.state.clone());
            session.rotate(&[session_token(new)], TokenKey([carried; 16]), Span::from_ms(10), now);
            session.presented(TokenKey([carried; 16]), now);
            prop_assert_eq!(&before, &(session.id, session.times, session.deadline, session.state.clone()));
            prop_assert_eq!(session.current_tokens().len(), 1, "one value of one cookie is in use");
            prop_assert!(session.keys().count() <= MAX_TOKENS);
        }
    }

    #[test]
    fn law_3_activity_moves_only_the_idle_deadline(policy in policy(), times in times(), later in moment()) {
        let before = deadline(&policy, &times);
        let touched = Times { last_active_at: times.last_active_at.max(later), ..times };
        let after = deadline(&policy, &touched);
        prop_assert_eq!(before.lifetime_at, after.lifetime_at);
        prop_assert!(after.idle_at >= before.idle_at);
    }

    #[test]
    fn law_5_after_admission_at_most_the_limit_live(policy in policy(), rivals in rivals()) {
        let max = policy.max_concurrent.map_or(usize::MAX, |max| max.get() as usize);
        match admit(&policy, &rivals) {
            Admission::Active { end } => {
                prop_assert!(rivals.len() - end.len() < max);
                prop_assert!(end.is_empty() || rivals.len() - end.len() == max - 1, "no more than needed");
            }
            Admission::Pending => {
                prop_assert!(policy.on_limit.holds_back() && rivals.len() >= max);
            }
        }
    }

    #[test]
    fn law_5_the_order_of_the_rivals_does_not_matter(policy in policy(), mut rivals in rivals()) {
        let first = admit(&policy, &rivals);
        rivals.reverse();
        prop_assert_eq!(first, admit(&policy, &rivals));
    }

    #[test]
    fn law_6_a_stripped_token_is_read_by_no_app(header in cookie_header()) {
        let rules = rules();
        let parsed = RequestCookies::parse(std::iter::once(header.as_bytes()), &rules);
        let forwarded = if parsed.needs_rewrite() { parsed.forwarded(|_, _| false) } else { Some(header.clone().into_bytes()) };
        let forwarded = String::from_utf8(forwarded.unwrap_or_default()).unwrap();
        for (name, value) in as_an_app_reads(&forwarded) {
            let token = name == "jsessionid" || name == "php_sess" || name.starts_with("remember");
            prop_assert!(!token || value.is_empty(), "{header:?} -> {forwarded:?} is read as {name}={value}");
        }
    }

    #[test]
    fn chunks_are_one_token_in_any_order(
        (data, leftovers, quoted) in (vec("[a-z]{1,4}", 1..6), 0..3_usize, any::<bool>()),
        order in any::<u64>(),
        missing in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let name = ".AspNetCore.Cookies";
        let quote = if quoted { "\"" } else { "" };
        let mut pairs = vec![("theme".to_owned(), "dark".to_owned()), (name.to_owned(), format!("chunks-{}", data.len()))];
        pairs.extend(data.iter().enumerate().map(|(i, part)| (format!("{name}C{}", i + 1), format!("{quote}{part}{quote}"))));
        let gone = missing.map(|index| pairs.remove(2 + index.index(data.len())));
        let whole = pairs.clone();
        pairs.extend((0..leftovers).map(|i| (format!("{name}C{}", data.len() + 1 + i), "left".to_owned())));
        pairs.sort_by_key(|(name, _)| blake3::hash(format!("{order}{name}").as_bytes()).as_bytes()[..8].to_vec());
        let header = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let extract = Extract::for_name(name);
        let rules = [CookieRule { name: NamePattern::parse(name), kind: CookieKind::Session, extract }];
        let parsed = RequestCookies::parse(std::iter::once(header.as_bytes()), &rules);
        let ids: Vec<_> = parsed.tokens.iter().map(|token| token.id.to_vec()).collect();
        let expected: Vec<Vec<u8>> = if gone.is_none() { vec![data.concat().into_bytes()] } else { Vec::new() };
        prop_assert_eq!(ids, expected, "{}", header);
        prop_assert_eq!(parsed.dropped, usize::from(gone.is_some()), "a missing chunk makes it malformed");
        prop_assert!(parsed.needs_rewrite());
        prop_assert_eq!(parsed.forwarded(|_, _| false), Some(b"theme=dark".to_vec()), "all of it is stripped");
        let kept = String::from_utf8(parsed.forwarded(|_, _| true).unwrap()).unwrap();
        let mut kept: Vec<_> = kept.split("; ").map(str::to_owned).collect();
        let mut all: Vec<_> = whole.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if gone.is_some() {
            all.truncate(1);
        }
        kept.sort();
        all.sort();
        prop_assert_eq!(kept, all, "what belongs to it travels with it, and no left-over chunk does");
    }

    #[test]
    fn law_7_of_duplicates_only_one_is_forwarded(standings in vec(standing(), 0..6)) {
        let tokens: Vec<_> = standings
            .iter()
            .map(|s| Weighed { name: b"sid", kind: CookieKind::Session, standing: *s })
            .collect();
        let (evidence, kept) = weigh(&tokens, 0);
        let forwarded: Vec<_> = kept.iter().zip(&standings).filter(|(keep, _)| **keep).map(|(_, s)| *s).collect();
        prop_assert!(forwarded.len() <= 1);
        for standing in forwarded {
            let Standing::Live { session, .. } = standing else { panic!("a token that is not live travels: {standing:?}") };
            let counted = matches!(evidence, Evidence::Live { session: s, .. } if s == session);
            prop_assert!(counted);
        }
    }

    #[test]
    fn law_8_an_outage_forwards_nothing_and_ends_nothing(rules in gate_rules(), facts in facts(), others in vec(standing(), 0..4)) {
        let mut tokens: Vec<_> = others
            .iter()
            .map(|s| Weighed { name: b"sid", kind: CookieKind::Session, standing: *s })
            .collect();
        tokens.push(Weighed { name: b"sid", kind: CookieKind::Session, standing: Standing::Unavailable });
        let (evidence, kept) = weigh(&tokens, 0);
        prop_assert!(kept.iter().all(|keep| !keep));
        prop_assert_eq!(decide(&rules, &facts, evidence), Action::Unavailable);
    }

    #[test]
    fn only_a_live_session_is_forwarded_for_and_touched(rules in gate_rules(), facts in facts(), list in vec(standing(), 0..5)) {
        let tokens: Vec<_> = list
            .iter()
            .map(|s| Weighed { name: b"sid", kind: CookieKind::Session, standing: *s })
            .collect();
        let (evidence, _) = weigh(&tokens, 0);
        let action = decide(&rules, &facts, evidence);
        if let Action::Forward { session, touch } = action {
            let live = |s: &Standing| matches!(s, Standing::Live { session: id, .. } if *id == session);
            prop_assert!(list.iter().any(live));
            let in_use = |s: &Standing| matches!(s, Standing::Live { session: id, alias: false } if *id == session);
            prop_assert!(!touch || list.iter().any(in_use), "an alias never touches (R10)");
            prop_assert!(!touch || (facts.activity && facts.place != Place::Public));
        }
        let open = facts.place.is_open();
        let told = matches!(action, Action::Tell { .. } | Action::TellByPassing { .. } | Action::HoldBack { .. });
        prop_assert!(!(open && told), "login, sign_in and public are never answered by an end (R15)");
    }

    #[test]
    fn paths_have_one_normal_form(raw in "/[a-zA-Z0-9./%;()~_-]{0,40}") {
        if let Ok(normal) = normalise(&raw, &["jsessionid"]) {
            prop_assert!(normal.path.starts_with('/'));
            let again = normalise(&normal.path, &["jsessionid"]).unwrap();
            prop_assert_eq!(&again.path, &normal.path);
            prop_assert!(!normal.path.split('/').any(|s| s == "." || s == ".."));
            prop_assert!(!normal.path.to_lowercase().contains(";jsessionid"));
        }
    }

    #[test]
    fn no_query_keeps_a_session_id(query in "[a-zPHPSESSID%5\\[\\]&=;.+]{0,40}") {
        let stripped = strip_query(&query, &["PHPSESSID"]).unwrap_or(query);
        for pair in stripped.split(['&', ';']) {
            prop_assert!(!pair.split('=').next().unwrap_or_default().eq_ignore_ascii_case("PHPSESSID"));
        }
    }

    #[test]
    fn the_way_back_leads_to_this_origin(target in "[/\\\\a-z.:%0-9@\t ]{0,30}") {
        let location = login_location("/login", Some("next"), Some(&target));
        prop_assert!(location == "/login" || location.starts_with("/login?next=/"));
        if is_safe(&target) {
            // As a browser resolves it: tabs and newlines dropped, backslashes read as slashes.
            let read: String = target.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
            prop_assert!(!read.replace('\\', "/").starts_with("//"));
        }
    }

    #[test]
    fn names_are_stable_under_normalisation(raw in "\\PC{0,60}") {
        for case in [UserCase::Fold, UserCase::Exact] {
            if let Ok(Some(name)) = normal_name(&raw, case) {
                prop_assert_eq!(normal_name(&name, case), Ok(Some(name)));
            }
        }
    }

    #[test]
    fn a_bound_holds_and_moves_nothing_within_it(min in 1..50_u64, width in 0..50_u64, value in proptest::option::of(0..200_u64)) {
        let range = Range { min: Some(Span::from_ms(min)), max: Some(Span::from_ms(min + width)) };
        let value = value.map_or(Limit::Off, |v| Limit::At(Span::from_ms(v)));
        let clamped = range.clamp(value);
        prop_assert!(range.allows(clamped));
        prop_assert!(clamped >= Limit::At(Span::from_ms(min)) && clamped <= Limit::At(Span::from_ms(min + width)));
    }

    #[test]
    fn a_deletion_carries_the_attributes_it_was_learned_from(
        domain in proptest::option::of("[a-z]{1,8}\\.example"),
        path in "/[a-z]{0,8}",
        flags in any::<[bool; 3]>(),
        same_site in proptest::option::of(proptest::sample::select(vec!["Strict", "Lax", "None"])),
    ) {
        let attributes = Attributes {
            domain, path, secure: flags[0], http_only: flags[1], partitioned: flags[2], same_site: same_site.map(str::to_owned),
        };
        let field = deletion("__Host-sid", &attributes);
        let read = read_set_cookie(field.as_bytes(), "/elsewhere", Moment::from_unix_ms(1_750_000_000_000)).unwrap();
        prop_assert!(read.deletes);
        prop_assert_eq!(read.attributes, attributes);
    }
}
