//! One database of the server that all seeds share, as an operator's hand reaches into it.

use std::net::SocketAddr;

use redis::{Connection, Value};

use crate::redis_support::Server;

/// What a database held.
pub(crate) struct Held(Vec<Value>);

const DUMP: &str = r"
local held = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  held[#held + 1] = key
  held[#held + 1] = redis.call('DUMP', key)
  local left = redis.call('PTTL', key)
  held[#held + 1] = left < 0 and 0 or math.max(left, 1)
end
return held";

const RESTORE: &str = r"
redis.call('FLUSHDB')
for i = 1, #ARGV, 3 do redis.call('RESTORE', ARGV[i], ARGV[i + 2], ARGV[i + 1]) end";

/// Who reaches in: another user than gateways are.
const OPERATOR: &str = "operator";

/// Lets operators in.
pub(crate) fn admit_operators(server: &Server) {
    let said = server.ask(&["acl", "setuser", OPERATOR, "on", "nopass", "~*", "&*", "+@all"]);
    assert_eq!(said.trim(), "OK");
}

/// See the module.
pub(crate) struct Database(Connection);

impl Database {
    pub(crate) fn open(port: u16, number: u32) -> Self {
        let client =
            redis::Client::open(format!("redis://{OPERATOR}:any@127.0.0.1:{port}/{number}")).unwrap();
        let mut database = Self(client.get_connection().unwrap());
        database.lose_all();
        database
    }

    /// Breaks these connections before the server has carried out what it has not read of them.
    pub(crate) fn hang_up(&mut self, names: impl Iterator<Item = SocketAddr>) {
        for name in names {
            // One that is gone already is what was wanted.
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("ADDR").arg(name.to_string());
            // Its address may be another seed's operator's by now.
            let _gone = kill.arg("USER").arg("default").exec(&mut self.0);
        }
    }

    pub(crate) fn lose_all(&mut self) {
        redis::cmd("FLUSHDB").exec(&mut self.0).unwrap();
    }

    pub(crate) fn held(&mut self) -> Held {
        Held(redis::cmd("EVAL").arg(DUMP).arg(0).query(&mut self.0).unwrap())
    }

    pub(crate) fn fall_back(&mut self, Held(values): &Held) {
        let mut eval = redis::cmd("EVAL");
        eval.arg(RESTORE).arg(0);
        for value in values {
            match value {
                Value::BulkString(bytes) => eval.arg(bytes),
                Value::Int(number) => eval.arg(*number),
                other => panic!("no answer of the script: {other:?}"),
            };
        }
        eval.exec(&mut self.0).unwrap();
    }

    /// The names of its keys, and for how long each is kept yet, in milliseconds; -1 for ever.
    pub(crate) fn keys(&mut self) -> Vec<(String, i64)> {
        let mut keys: Vec<(String, i64)> = Vec::new();
        let names: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut self.0).unwrap();
        for name in names {
            let left = redis::cmd("PTTL").arg(&name).query(&mut self.0).unwrap();
            keys.push((String::from_utf8_lossy(&name).into_owned(), left));
        }
        keys
    }
}
