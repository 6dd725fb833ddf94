//! What a page of the documentation asks for.

/// The steps of a page, in order.
pub(crate) struct Page {
    pub(crate) steps: Vec<Step>,
}

/// One thing that a reader does.
pub(crate) enum Step {
    /// Writes a file.
    File { name: String, content: String },
    /// Runs a command, and sees this.
    Command { line: usize, command: String, expected: Vec<String> },
}

impl Page {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some(kind) = line.strip_prefix("```") else { continue };
            let block: Vec<_> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
            match kind {
                "yaml" => {
                    let name = block.first().and_then(|(_, line)| line.strip_prefix("# ")?.strip_suffix(".yaml"));
                    let name =
                        name.ok_or_else(|| format!("line {}: a block of YAML without a file name", number + 1))?;
                    let content = block.iter().flat_map(|(_, line)| [line, "\n"]).collect();
                    steps.push(Step::File { name: format!("{name}.yaml"), content });
                }
                "console" => commands(&block, &mut steps)?,
                "text" | "json" => {}
                other => return Err(format!("line {}: a block of {other:?} is not run by anybody", number + 1)),
            }
        }
        Ok(Self { steps })
    }

    /// The containers that its commands remove.
    pub(crate) fn containers(&self) -> Vec<String> {
        let commands = self.steps.iter().filter_map(|step| match step {
            Step::Command { command, .. } => command.strip_prefix("docker rm -f "),
            Step::File { .. } => None,
        });
        commands.map(str::to_owned).collect()
    }
}

fn commands(block: &[(usize, &str)], steps: &mut Vec<Step>) -> Result<(), String> {
    for (number, line) in block {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step::Command { line: number + 1, command: command.to_owned(), expected: Vec::new() });
            continue;
        }
        match (steps.last_mut(), line.strip_prefix("> ")) {
            (Some(Step::Command { command, .. }), Some(more)) => command.extend(["\n", more]),
            (Some(Step::Command { expected, .. }), None) => expected.push((*line).to_owned()),
            _ => return Err(format!("line {}: output without a command", number + 1)),
        }
    }
    Ok(())
}

/// Whether what was printed is what is expected. `…` is anything in a line; alone, any lines.
pub(crate) fn matches(expected: &[String], printed: &[&str]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "…" => (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..])),
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(line, more)| line_matches(first, line) && matches(rest, more))
        }
    }
}

/// Columns are as wide as what stands in them.
fn line_matches(expected: &str, printed: &str) -> bool {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (expected, printed) = (squeezed(expected), squeezed(printed));
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let mut is_open = false;
    for part in parts {
        is_open = true;
        let Some(at) = (if part.is_empty() { Some(rest.len()) } else { rest.find(part) }) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || (is_open && expected.ends_with('…'))
}
