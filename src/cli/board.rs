//! `fovea board`, and how a board's profile becomes an appliance's parts.

use anyhow::Context;
use fovea::appliance::Appliance;
use fovea::config::{Config, Size};
use fovea_board::{Board, Display, Profile};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Boards as this build knows them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea board list\n  fovea board show orin-nano > mine.toml\n\n\
                        A file of your own (`inherits = \"orin-nano\"` and what differs) is named by its path: --board mine.toml. The \
                        section [board] of fovea.toml says the same.\nExit codes: 0 shown, 2 no such board or a wrong line.")]
pub struct BoardCommand {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Name the boards
    List,
    /// Print a board with all that it inherits, and where each value comes from
    Show {
        /// A board's name, or a file that ends in .toml
        name: String,
    },
}

/// Lists or shows.
pub fn run(args: BoardCommand) -> anyhow::Result<ExitCode> {
    match args.command {
        What::List => {
            for name in fovea_board::profiles() {
                let about = Board::named(name)?.profile.about;
                println!("{name:12} {}", about.unwrap_or_default());
            }
        }
        What::Show { name } => print!("{}", Board::named(&name)?.show()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Lays the board (`--board`, else the section `[board]`, else `generic`) under a configuration: what the configuration
/// leaves open is as the board says.
pub fn fit(config: &mut Config, name: Option<&str>) -> anyhow::Result<()> {
    let mut own = std::mem::take(&mut config.board);
    if name.is_some() || own.inherits.is_none() {
        own.inherits = Some(name.unwrap_or("generic").into());
    }
    let board = Board::over(own, "[board]")?.profile;
    if let (true, Some(prefer)) = (config.engine == "auto", &board.engine.prefer) {
        config.engine = prefer.join(",");
    }
    if let (true, Some(uri)) = (config.display == "auto", &board.display.uri) {
        config.display.clone_from(uri);
    }
    if let (None, Some(size)) = (config.size, board.display.size) {
        config.size = Some(Size::try_from(size).map_err(anyhow::Error::msg).context("the board's display")?);
    }
    config.board = board;
    Ok(())
}

/// Adds to a capture device's source the options that the board has for its card.
pub fn with_quirks(source: &str, board: &Profile, sys: &Path) -> String {
    let Some(rest) = source.strip_prefix("v4l2:").filter(|rest| !rest.contains('?')) else {
        return source.into();
    };
    let card = card(Path::new(rest.strip_prefix("//").unwrap_or(rest)), sys);
    board.quirk(&card).map_or(source.into(), |options| format!("{source}?{options}"))
}

/// The name of a capture device's card, from below `sys` (`/sys`); empty where there is none.
pub fn card(path: &Path, sys: &Path) -> String {
    // The stable names are links to the numbered ones.
    let file = path.canonicalize().unwrap_or_else(|_| path.into());
    let name = file.file_name().map(|name| sys.join("class/video4linux").join(name).join("name"));
    let card = name.and_then(|name| std::fs::read_to_string(name).ok()).unwrap_or_default();
    card.trim().to_owned()
}

/// Gives an appliance the board's parts. One that cannot be had is said and left out: the screen works without.
pub fn wire<'a>(
    appliance: Appliance<'a>,
    board: &Profile,
    display: &dyn Display,
) -> anyhow::Result<Appliance<'a>> {
    let mut appliance =
        appliance.rest(Duration::from_millis(board.power.rest_ms.map_or(0, |ms| ms.get().into())));
    let played = display.board();
    let keys = match &played {
        Some(board) => board.keys(),
        None => fovea_board::Keys::new(timing(board)),
    };
    appliance = appliance.buttons(Box::new(keys.clone()));
    if let Some(board) = played.clone() {
        appliance = appliance.lights(Box::new(board));
    }
    #[cfg(target_os = "linux")]
    {
        // A window hears its own keys; at a bare screen whatever keyboard or touch screen is there is for it alone.
        if board.buttons.inputs.unwrap_or(false) && played.is_none() && display.watched() {
            fovea_board::start_inputs(Path::new("/dev/input"), keys.clone(), fovea::screen::touched)?;
        }
        appliance = devices(appliance, board, &keys)?;
    }
    Ok(appliance)
}

/// The times by which presses are judged.
fn timing(board: &Profile) -> fovea_board::Timing {
    let usual = fovea_board::Timing::default();
    let millis = |ms: u32| Duration::from_millis(ms.into());
    fovea_board::Timing {
        debounce: board.buttons.debounce_ms.map_or(usual.debounce, |ms| millis(ms.get())),
        long: board.buttons.long_press_ms.map_or(usual.long, |ms| millis(ms.get())),
    }
}

#[cfg(target_os = "linux")]
fn devices<'a>(
    mut appliance: Appliance<'a>,
    board: &Profile,
    keys: &fovea_board::Keys,
) -> anyhow::Result<Appliance<'a>> {
    let missing = |error: fovea_board::BoardError| eprintln!("left out: {error}");
    for button in parts::buttons(board) {
        match button {
            Ok(button) => button.start(keys.clone())?,
            Err(error) => missing(error),
        }
    }
    match parts::lights(board) {
        Some(Ok(lights)) => appliance = appliance.lights(Box::new(lights)),
        Some(Err(error)) => missing(error),
        None => {}
    }
    match parts::buzzer(board) {
        Some(Ok(buzzer)) => appliance = appliance.lights(Box::new(buzzer)),
        Some(Err(error)) => missing(error),
        None => {}
    }
    if let Some(thermal) = parts::thermal(board) {
        let rest = board.thermal.rest_ms.map_or(500, |ms| ms.get());
        appliance = appliance.thermal(thermal, Duration::from_millis(rest.into()));
    }
    if let Some(notify) = fovea_board::Notify::from_environment() {
        appliance = appliance.keeper(Box::new(notify));
    }
    if let Some(path) = &board.watchdog.device {
        let seconds = board.watchdog.timeout_s.map_or(30, |s| s.get());
        match fovea_board::Watchdog::open(path, Duration::from_secs(seconds.into())) {
            Ok(dog) => appliance = appliance.keeper(Box::new(dog)),
            Err(error) => missing(error),
        }
    }
    Ok(appliance)
}

/// The devices that a profile names, opened.
#[cfg(target_os = "linux")]
pub mod parts {
    use fovea_board::{BoardError, Button, Buzzer, GpioButtons, GpioLights, Profile, Thermal};
    use std::path::Path;

    /// Each button's line.
    pub fn buttons(board: &Profile) -> impl Iterator<Item = Result<GpioButtons, BoardError>> {
        let part = &board.buttons;
        let lines = [(&part.capture, Button::Capture), (&part.next, Button::Next), (&part.eye, Button::Eye)];
        let debounce = super::timing(board).debounce;
        let low = part.active_low.unwrap_or(false);
        let named = lines.into_iter().filter_map(|(line, button)| Some((line.as_deref()?, button)));
        named.map(move |(line, button)| GpioButtons::open(line, button, low, debounce))
    }

    /// The lights, where any is named.
    pub fn lights(board: &Profile) -> Option<Result<GpioLights, BoardError>> {
        let part = &board.lights;
        let names = [&part.ready, &part.working, &part.attention].map(|name| name.as_deref());
        let any = names.iter().any(Option::is_some);
        any.then(|| GpioLights::open(names, part.active_low.unwrap_or(false)))
    }

    /// The buzzer, where one is named.
    pub fn buzzer(board: &Profile) -> Option<Result<Buzzer, BoardError>> {
        let part = &board.buzzer;
        let tone = part.hertz.map_or(2400, |hertz| hertz.get());
        Some(Buzzer::open(part.chip.as_deref()?, part.channel.unwrap_or(0), tone))
    }

    /// The thermal zones, where any is named and a limit is set.
    pub fn thermal(board: &Profile) -> Option<Thermal> {
        let part = &board.thermal;
        let zones = part.zones.as_ref().filter(|zones| !zones.is_empty())?;
        let slow = part.slow_at?.get();
        Some(Thermal::open(Path::new("/"), zones, slow, part.back_at.map_or(slow - 5.0, |back| back.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_goes_before_its_board_and_the_argument_before_both() {
        let parse = |text: &str| Config::parse(text, Path::new("fovea.toml")).unwrap();
        let mut config =
            parse("engine = 'scalar'\n[board]\ninherits = 'nano'\n[board.thermal]\nslow_at = 60.0");
        fit(&mut config, None).unwrap();
        assert_eq!((config.engine.as_str(), config.display.as_str()), ("scalar", "drm:///dev/dri/card0"));
        assert_eq!(config.board.thermal.slow_at.unwrap().get(), 60.0);
        assert_eq!(config.board.power.rest_ms.unwrap().get(), 200);
        let mut config = parse("size = [480, 320]\n[board]\ninherits = 'nano'");
        fit(&mut config, Some("qemu-x86")).unwrap();
        assert_eq!(config.screen(), Size { width: 480, height: 320 });
        assert_eq!(config.board.power.rest_ms, None);
        let mut config = parse("");
        fit(&mut config, Some("qemu-x86")).unwrap();
        assert_eq!(config.screen(), Size { width: 1280, height: 800 });
        assert!(fit(&mut parse(""), Some("toaster")).unwrap_err().to_string().contains("toaster"));
    }

    #[test]
    fn quirks_go_by_the_card_and_never_over_what_is_stated() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("class/video4linux/video7");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("name"), "USB Video: USB Video\n").unwrap();
        let mut config = Config::default();
        fit(&mut config, None).unwrap();
        let source = |uri: &str| with_quirks(uri, &config.board, sys.path());
        assert_eq!(source("v4l2:///dev/video7"), "v4l2:///dev/video7?format=yuyv");
        assert_eq!(source("v4l2:///dev/video7?fps=5"), "v4l2:///dev/video7?fps=5");
        assert_eq!(source("v4l2:///dev/video8"), "v4l2:///dev/video8");
        assert_eq!(source("folder:."), "folder:.");
    }
}
