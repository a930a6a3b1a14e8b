//! The rules as a person writes them, for `nft -f -`.

use std::fmt::Write as _;

use super::{CHAIN, PRIORITY, Redirect, TABLE};

impl Redirect {
    /// A script that puts these rules in place of whatever the table held before, with a word on each.
    pub fn script(&self) -> String {
        let mut rules = String::new();
        let mut rule = |comment: &str, rule: String| {
            if !comment.is_empty() {
                let _ = writeln!(rules, "\t\t# {comment}");
            }
            let _ = writeln!(rules, "\t\t{rule}");
        };
        if let Some(user) = self.but_user {
            rule("The sidecar's own connections, by its user: they would come back to it for ever.", skuid(user));
        }
        if let Some(mark) = self.but_mark {
            rule("The sidecar's own connections, by the mark that it sets.", format!("meta mark {mark} return"));
        }
        rule("What never leaves this host.", "ip daddr 127.0.0.0/8 return".to_owned());
        rule("", "fib daddr type local return".to_owned());
        let mut comment = "The rest goes to the sidecar, which asks where it was meant to go (SO_ORIGINAL_DST).";
        for port in &self.ports {
            rule(comment, format!("tcp dport {port} redirect to :{}", self.to));
            comment = "";
        }
        format!(
            "# Connections of this host's programs to some ports of others go to the sidecar instead.\n\
             # `nft -f -` takes this in one step; `nft delete table ip {TABLE}` ends it.\n\
             \n\
             # In place of what may be there from before.\n\
             table ip {TABLE}\n\
             delete table ip {TABLE}\n\
             \n\
             table ip {TABLE} {{\n\
             \tchain {CHAIN} {{\n\
             \t\t# Before what others translate (-100): with another destination it would not come by here any more.\n\
             \t\ttype nat hook output priority {PRIORITY}; policy accept;\n\
             {rules}\
             \t}}\n\
             }}\n"
        )
    }
}

fn skuid(user: u32) -> String {
    format!("meta skuid {user} return")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_says_what_is_redirected_and_what_is_not() {
        let redirect = Redirect { ports: vec![80, 8080], to: 8472, but_user: Some(65532), but_mark: Some(7) };
        let script = redirect.script();
        let rules: Vec<_> =
            script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let expected = [
            "table ip outrigger",
            "delete table ip outrigger",
            "table ip outrigger {",
            "chain output {",
            "type nat hook output priority -110; policy accept;",
            "meta skuid 65532 return",
            "meta mark 7 return",
            "ip daddr 127.0.0.0/8 return",
            "fib daddr type local return",
            "tcp dport 80 redirect to :8472",
            "tcp dport 8080 redirect to :8472",
            "}",
            "}",
        ];
        assert_eq!(rules, expected);
    }
}
