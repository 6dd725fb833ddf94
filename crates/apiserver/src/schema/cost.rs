//! What a rule may cost. Rules come from clients, and the parser and the interpreter of CEL know few limits: one that is nested takes
//! a stack of many MiB, and one that goes through a list within a list takes the square of the time.

use serde_json::Value;

/// As long as a rule or the expression of a message may be, in bytes.
const LENGTH: usize = 8 * 1024;
/// Operators within each other that are evaluated on the stack of the caller: each takes tens of KiB without optimization. Deeper
/// rules get a large stack, which costs a thread.
const INLINE: usize = 24;
/// A large stack; only what is used of it takes memory.
const STACK: usize = 256 * 1024 * 1024;
/// As many steps as a rule may take on one value, about.
const STEPS: u64 = 300_000_000;

/// What goes through all items of a list.
const LOOPS: [&str; 9] =
    ["all(", "exists(", "exists_one(", "existsOne(", "map(", "filter(", "transformList(", "transformMap(", "sortBy("];
/// What looks at the whole of a text or a list.
const LINEAR: [&str; 8] = [" in ", "+", "contains(", "matches(", "indexOf(", "replace(", "split(", "join("];

/// The limits of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    length: usize,
    /// How many operators may be within each other.
    depth: usize,
    /// How many loops are within each other.
    loops: u32,
    /// Whether what is done within a loop may go through everything, too.
    linear: bool,
}

impl Cost {
    /// Of the rules of a node, each with the expression of its message: the dearest one. Refuses what is too long.
    pub(super) fn of(rules: &Value) -> Result<Self, String> {
        let rules = rules.as_array().into_iter().flatten();
        let texts = rules.flat_map(|rule| [rule.get("rule"), rule.get("messageExpression")]).flatten();
        let mut cost = Self { length: 0, depth: 0, loops: 0, linear: false };
        for text in texts.filter_map(Value::as_str) {
            if text.len() > LENGTH {
                return Err(format!("a rule may have at most {LENGTH} bytes, and one has {}", text.len()));
            }
            cost.length = cost.length.max(text.len());
            cost.depth = cost.depth.max(depth(text));
            cost.loops = cost.loops.max(nested_loops(text));
            cost.linear |= LINEAR.iter().any(|one| text.contains(one));
        }
        Ok(cost)
    }

    /// Whether the rules can be evaluated on such a value.
    pub(super) fn allows(self, value: &Value) -> bool {
        if self.loops == 0 {
            return true;
        }
        // A list may be in the rule as well.
        let items = count(value).max(self.length);
        let whole = if self.linear { crate::meta::json_size(value).max(self.length) } else { 1 };
        let wide = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        wide(items).saturating_pow(self.loops).saturating_mul(wide(whole)) <= STEPS
    }

    /// Runs what parses or evaluates the rules. `None` where that fails in an unforeseen way.
    pub(super) fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> Option<T> {
        if self.depth <= INLINE {
            return std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
        }
        on_large_stack(work)
    }
}

/// Runs something that may need a large stack.
pub(super) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("rules".to_owned()).stack_size(STACK);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

/// How many operators may be within each other in a rule: those between one `&&` or `||` and the next, which are no deeper than
/// their parts.
fn depth(rule: &str) -> usize {
    let operators = |part: &str| part.chars().filter(|c| "+-*/%.[({?<>=!".contains(*c)).count();
    rule.split("&&").flat_map(|part| part.split("||")).map(operators).max().unwrap_or(0)
}

/// How many loops are within each other in a rule, at most. Texts count as code: that errs on the safe side.
fn nested_loops(rule: &str) -> u32 {
    let (mut open, mut most) = (Vec::new(), 0);
    for (at, c) in rule.char_indices() {
        match c {
            '(' => {
                let before = rule.get(..=at).unwrap_or_default();
                open.push(LOOPS.iter().any(|one| before.ends_with(one)));
                let loops = open.iter().filter(|is_loop| **is_loop).count();
                most = most.max(u32::try_from(loops).unwrap_or(u32::MAX));
            }
            ')' => drop(open.pop()),
            _ => {}
        }
    }
    most
}

/// How many values there are.
pub(super) fn count(value: &Value) -> usize {
    let inner: usize = match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    };
    inner.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cost(rule: &str) -> Cost {
        Cost::of(&json!([{"rule": rule}])).unwrap()
    }

    #[test]
    fn loops_within_loops_are_counted() {
        for (rule, loops) in [
            ("self.a == 1", 0),
            ("self.a.all(x, x > 0) && self.b.exists(y, y > 0)", 1),
            ("self.a.all(x, self.b.exists(y, size(y) == x))", 2),
            ("self.a.map(x, f(self.b.filter(y, self.c.all(z, z)))).size() > 0", 3),
        ] {
            assert_eq!(cost(rule).loops, loops, "{rule}");
        }
    }

    #[test]
    fn a_loop_in_a_loop_is_for_short_lists() {
        let twice = cost("self.all(x, self.all(y, x == y))");
        assert!(twice.allows(&json!(vec![0; 10_000])));
        assert!(!twice.allows(&json!(vec![0; 100_000])));
        assert!(cost("self.all(x, x > 0)").allows(&json!(vec![0; 200_000])));
        assert!(
            !cost("self.l.map(x, self.t + 't').size() > 0")
                .allows(&json!({"l": vec![0; 100_000], "t": "t".repeat(1_000_000)}))
        );
        let fixed = format!("[{}0]", "0,".repeat(1000));
        assert!(!cost(&format!("{fixed}.all(x, {fixed}.all(y, {fixed}.all(z, true)))")).allows(&json!(0)));
    }

    #[test]
    fn a_chain_is_as_deep_as_it_is_long_and_alternatives_are_not() {
        assert_eq!(depth("1+1+1+1"), 3);
        assert_eq!(depth("!has(self.a) || self.a != '' && self.b == self.c"), 4);
        let chain = format!("1{} > 0", "+1".repeat(4000));
        assert_eq!(cost(&chain).run(|| 1), Some(1));
        assert_eq!(cost(&chain).run(|| -> u8 { panic!("unforeseen") }), None);
    }

    #[test]
    fn a_rule_has_a_length() {
        assert!(Cost::of(&json!([{"rule": "a".repeat(LENGTH)}])).is_ok());
        assert!(Cost::of(&json!([{"rule": "a", "messageExpression": "a".repeat(LENGTH + 1)}])).is_err());
    }
}
