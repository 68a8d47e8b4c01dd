//! The console: lines in, commands, and what is done next.

use core::{mem, str};

use llamita::Kernels;
use llamita_storage::SECTOR;
use zerocopy::IntoBytes;

use crate::arena::Memories;
use crate::card::Watched;
use crate::command::{Command, HELP, Options, Setting, cache_name, parse};
use crate::editor::{Editor, LINE, Line, PROMPT, Typed};
use crate::load::Session;
use crate::models::{self, FLASH, Found, NAME, Name};
use crate::port::{Port, TYPED};
use crate::rates::{self, Rates};
use crate::stats::{Lines, Members, Stats};
use crate::text::{Clean, Escaped};
use crate::{Card, Machine};

/// What lives as long as the program, whatever models come and go.
pub(crate) struct App<'m, 'c, M: Machine, C> {
    pub port: Port<'m, M>,
    pub flash: Option<&'c [u8]>,
    pub card: Option<&'c C>,
    pub options: Options,
    pub rates: Rates,
    /// How the last text was made.
    pub last: Option<Stats>,
    /// The model that was chosen last.
    chosen: Option<Name>,
    editor: Editor,
}

/// What is done when a console ends.
pub(crate) enum Next {
    /// The model that was chosen is loaded.
    Load,
    /// There is no model.
    Idle,
    /// The kernels are timed, with the model's memory, and the model is loaded anew.
    #[cfg(feature = "kernels")]
    Kernels,
    /// The program ends.
    Quit,
}

impl<'m, 'c, M: Machine, C: Card> App<'m, 'c, M, C> {
    pub fn new(machine: &'m mut M, mapped: Option<&'c [u8]>, card: Option<&'c C>) -> Self {
        Self {
            port: Port::new(machine),
            // Flash that was never written has no model.
            flash: mapped.filter(|flash| flash.starts_with(b"GGUF")),
            card,
            options: Options::default(),
            rates: Rates::default(),
            last: None,
            chosen: None,
            editor: Editor::default(),
        }
    }

    pub fn run(&mut self, memories: Memories<'_>) {
        if let Some(panel) = self.port.panel() {
            panel.start("llamita");
        }
        let [memory, more] = memories;
        self.port.say(format_args!(
            "llamita {} on {}: {} bytes of memory for models, {} arithmetic. /help lists commands.",
            env!("CARGO_PKG_VERSION"),
            M::NAME,
            (memory.len() + more.len()) * SECTOR,
            Kernels::detect().name()
        ));
        // Before anything of it is in a cache.
        self.rates.more = rates::of_memory::<M>(more.as_bytes());
        self.rates.flash = self.flash.map_or(0, rates::of_memory::<M>);
        let mut next = self.first();
        loop {
            next = match (next, self.chosen.clone()) {
                (Next::Quit, _) => break,
                #[cfg(feature = "kernels")]
                (Next::Kernels, chosen) => {
                    crate::kernels::tell(&mut self.port, memory);
                    chosen.map_or(Next::Idle, |_| Next::Load)
                }
                (Next::Load, Some(name)) => self.load([&mut *memory, &mut *more], &name),
                _ => self.console(None),
            };
        }
        self.port.flush();
    }

    /// Chooses the only model that there is.
    fn first(&mut self) -> Next {
        let mut only = None;
        let (count, result) =
            models::each(self.flash, self.device(), |found| only = Name::try_from(found.name).ok());
        if count == 1 && only.is_some() {
            if let Err(error) = result {
                self.port.say(format_args!("note: {error}"));
            }
            self.chosen = only;
            return Next::Load;
        }
        self.list();
        Next::Idle
    }

    /// The card's device, on which files are looked up.
    pub fn device(&self) -> Option<Watched<'c, M, C::Device>> {
        self.card.map(|card| Watched::new(card.device()))
    }

    /// Lists the models.
    fn list(&mut self) {
        let device = self.device();
        let Self { flash, card, port, .. } = self;
        let (count, result) = models::each(*flash, device, |Found { number, name, bytes }| {
            if port.json {
                let name = Escaped(name);
                port.put(format_args!(
                    "{{\"event\":\"model\",\"number\":{number},\"name\":\"{name}\",\"bytes\":{bytes}}}\n"
                ));
            } else {
                port.put(format_args!("{number:3}  {} ({bytes} bytes)\r\n", Clean(name)));
            }
            port.feed();
        });
        match (count, result) {
            (_, Err(error)) => {
                port.refuse(&error);
            }
            (0, Ok(())) if card.is_none() => {
                port.refuse(&format_args!(
                    "there is no model in flash, and this board has no card: {}",
                    M::FLASH_REMEDY
                ));
            }
            (0, Ok(())) => {
                port.refuse(&"the card has no .gguf file in its root folder: copy one there, then /models");
            }
            _ => (),
        }
        if count > 0 {
            port.say(format_args!("/model with a number or a name loads one"));
            if let Some(panel) = port.panel() {
                panel.note("/model loads a model");
            }
        }
    }

    /// Chooses a model by what was typed; with nothing, the last one again.
    fn choose(&mut self, typed: &str) -> Option<Next> {
        if typed.is_empty() {
            if self.chosen.is_none() {
                self.list();
                return None;
            }
            return Some(Next::Load);
        }
        let mut named = None;
        let (_, result) = models::each(self.flash, self.device(), |found| {
            if found.is(typed) && named.is_none() {
                named = Some(Name::try_from(found.name));
            }
        });
        let named = match (named, result) {
            // It may be in another folder.
            (None, Ok(())) if typed.parse::<usize>().is_err() => Name::try_from(typed),
            (None, Ok(())) => {
                self.port
                    .refuse(&format_args!("there is no model {typed}: /models lists those that there are"));
                return None;
            }
            (None, Err(error)) => {
                self.port.refuse(&error);
                return None;
            }
            (Some(named), _) => named,
        };
        let Ok(name) = named else {
            self.port
                .refuse(&format_args!("the name has more than {NAME} bytes: give the file a shorter one"));
            return None;
        };
        self.chosen = Some(name);
        Some(Next::Load)
    }

    /// Lines and what they ask for, with a model or without, until something else is to be done.
    pub fn console(&mut self, mut session: Option<&mut Session<'_, C, M::Team>>) -> Next {
        if let Some(session) = &session {
            if let Some(panel) = self.port.panel() {
                panel.clear();
                panel.note("type a prompt");
            }
            self.plan(session);
        }
        loop {
            let Typed { line, cut } = self.line(session.as_ref().map(|session| session.name));
            if cut {
                self.port.say(format_args!("note: the line was cut after {LINE} bytes"));
            }
            let Some(command) = self.command(&line) else { continue };
            let next = match (command, &mut session) {
                (Command::Prompt(text), Some(session)) => self.tell(session, text),
                (Command::Bench, Some(session)) => self.bench(session),
                (Command::Plan, Some(session)) => {
                    self.plan(session);
                    None
                }
                (Command::Prompt(_) | Command::Bench | Command::Plan, None) => {
                    self.port
                        .refuse(&"there is no model: /models lists those that there are, /model loads one");
                    None
                }
                (Command::Set(setting, value), session) => self.set(setting, value, session.is_some()),
                (Command::Model(typed), _) => self.choose(typed),
                #[cfg(feature = "kernels")]
                (Command::Kernels, _) => Some(Next::Kernels),
                (Command::Quit, _) => Some(Next::Quit),
                (Command::Help, _) => {
                    for (name, what) in HELP {
                        self.port.say(format_args!("{name:12} {what}"));
                    }
                    None
                }
                (Command::Models, _) => {
                    self.list();
                    None
                }
                (Command::Stats, _) => {
                    self.tell_stats("stats");
                    None
                }
                (Command::SelfTest, _) => {
                    self.self_test();
                    None
                }
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Waits for a line.
    fn line(&mut self, model: Option<&str>) -> Typed {
        let port = &mut self.port;
        if mem::take(&mut port.lost) {
            port.say(format_args!("note: more than {TYPED} keys were typed ahead, and are forgotten"));
        }
        match (port.json, model) {
            (false, _) => port.put(format_args!("{PROMPT}")),
            (true, None) => port.put(format_args!("{{\"event\":\"ready\",\"model\":null}}\n")),
            (true, Some(name)) => {
                port.put(format_args!("{{\"event\":\"ready\",\"model\":\"{}\"}}\n", Escaped(name)));
            }
        }
        loop {
            let key = port.key();
            let typed = self.editor.key(key, &mut |text| {
                // Programs know what they have written.
                if !port.json {
                    port.put(format_args!("{text}"));
                }
            });
            if let Some(typed) = typed {
                port.flush();
                return typed;
            }
        }
    }

    /// What a line asks for, if it can be read.
    fn command<'l>(&mut self, line: &'l Line) -> Option<Command<'l>> {
        let text = match str::from_utf8(line) {
            Ok(text) => text,
            Err(error) => {
                let place = error.valid_up_to() + 1;
                self.port.refuse(&format_args!(
                    "byte {place} of the line is not UTF-8: set the terminal to UTF-8, and type it again"
                ));
                return None;
            }
        };
        parse(text).map_err(|error| self.port.refuse(&error)).ok()
    }

    /// Changes a setting, or tells it.
    fn set(&mut self, setting: Setting, value: &str, has_model: bool) -> Option<Next> {
        if setting == Setting::Json {
            match value {
                "on" => self.port.json = true,
                "off" => self.port.json = false,
                _ => {
                    self.port.refuse(&"/json takes on or off");
                    return None;
                }
            }
        } else if !value.is_empty()
            && let Err(error) = self.options.set(setting, value)
        {
            self.port.refuse(&error);
            return None;
        }
        let Options { temperature, top_p, top_k, seed, steps, context, cache } = self.options;
        let port = &mut self.port;
        match setting {
            Setting::Temperature => port.say(format_args!("temperature {temperature}")),
            Setting::TopP => port.say(format_args!("top-p {top_p}")),
            Setting::TopK => port.say(format_args!("top-k {top_k}")),
            Setting::Seed => match seed {
                Some(seed) => port.say(format_args!("seed {seed}")),
                None => port.say(format_args!("another seed each time")),
            },
            Setting::Steps => port.say(format_args!("steps {steps}")),
            Setting::Context => port.say(format_args!("context {context}, or less where memory ends")),
            Setting::Cache => port.say(format_args!("keys and values {}", cache_name(cache))),
            Setting::Json => port.say(format_args!("JSON {value}")),
        }
        // These are the state's, whose memory was planned.
        let plans = matches!(setting, Setting::Context | Setting::Cache);
        (plans && has_model && !value.is_empty()).then_some(Next::Load)
    }

    /// Tells where the model is.
    fn plan(&mut self, session: &Session<'_, C, M::Team>) {
        let (port, places, name) = (&mut self.port, session.places, session.name);
        let config = session.engine.config();
        let (layers, dim, vocabulary_size) = (config.n_layers, config.dim, config.vocab_size);
        let (context, batch) = (places.capacity.context, places.capacity.batch);
        let cache = cache_name(places.capacity.cache);
        let crate::place::Places { file, vocabulary, state, buffers, pinned, home, free, .. } = places;
        let from = if places.mapped { FLASH } else { "card" };
        let [slower, flash, card] = self.rates.told();
        if port.json {
            port.put(format_args!(
                "{{\"event\":\"plan\",\"model\":\"{}\",\"file_bytes\":{file},\"layers\":{layers},\"dim\":{dim},\
                 \"vocabulary\":{vocabulary_size},\"context\":{context},\"batch\":{batch},\"kv\":\"{cache}\",\
                 \"from\":\"{from}\",\"state_bytes\":{state},\"vocabulary_bytes\":{vocabulary},\
                 \"buffer_bytes\":{buffers},\"pinned_bytes\":{pinned},\"home_bytes_per_token\":{home},\
                 \"free_bytes\":{free},\"more_mb_per_second\":{slower},\"flash_mb_per_second\":{flash},\
                 \"card_mb_per_second\":{card}}}\n",
                Escaped(name)
            ));
            port.flush();
            return;
        }
        port.say(format_args!(
            "{name}: {layers} layers of {dim}, {vocabulary_size} tokens, a context of {context}, keys and values \
             {cache}, passes of up to {batch}"
        ));
        port.say(format_args!(
            "{state} bytes for the state, {vocabulary} for the vocabulary, {buffers} for buffers and norms, {pinned} \
             for pinned weights, {free} free; a token takes {home} bytes from the {from}"
        ));
        if self.rates.is_known() {
            port.say(format_args!("read in a second:{}", self.rates));
        }
    }

    /// Tells how the last text was made.
    pub fn tell_stats(&mut self, event: &str) {
        match &self.last {
            None => {
                self.port.refuse(&"no text was made yet: type one, or an empty line");
            }
            Some(stats) if self.port.json => {
                let members = Members(stats);
                self.port.put(format_args!("{{\"event\":\"{event}\",{members}}}\n"));
            }
            Some(stats) => self.port.say(format_args!("{}", Lines(stats))),
        }
        self.port.flush();
    }

    // Its stack is free again when a text is made.
    #[inline(never)]
    fn self_test(&mut self) {
        let kernels = Kernels::detect();
        let result = llamita_conformance::check_with(kernels, M::feed);
        match result {
            Ok(count) => self.port.say(format_args!("{count} results of {} agree", kernels.name())),
            Err(error) => {
                self.port.refuse(&format_args!("{error}: the program is damaged, or built for another chip"));
            }
        }
    }
}
