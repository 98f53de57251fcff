"""What people say that no tool is for: idle talk, and wishes that no tool fulfils. `{first}` and others are blanks."""

Reply = str
TALK: tuple[tuple[Reply, tuple[str, ...]], ...] = (
    (
        "Hello! What can I do for you?",
        (
            "Hello!",
            "Hi there.",
            "Good afternoon, is anybody there?",
            "Hey, {first} here.",
            "Hello, I am {person}, from {site}.",
            "This is {person} speaking.",
            "Hi, are you ready for a new day?",
            "Good to see you again.",
            "I am called {first}, and you?",
        ),
    ),
    (
        "You are welcome.",
        (
            "Thanks!",
            "Thanks a lot, {first}.",
            "Thanks for your time, {person}.",
            "I have no more questions, {first}, thanks.",
            "Many thanks, that is what I needed.",
            "Great work, I am very happy with it.",
            "That was quick, well done.",
            "Perfect, nothing else for now.",
            "I am grateful for all that you did about {thing}.",
        ),
    ),
    (
        "Goodbye, and take care.",
        (
            "Bye!",
            "See you tomorrow, {first}.",
            "I am going home now.",
            "Have a nice weekend.",
            "Sleep well, {person}.",
            "I wish you a quiet evening, {first}.",
            "Until next week, {first}.",
        ),
    ),
    (
        "I am fine, thank you.",
        (
            "How do you do?",
            "Is everything all right with you?",
            "How was your weekend, {first}?",
            "Are you tired today?",
            "How is life?",
            "Did you have a good lunch?",
        ),
    ),
    (
        "How nice to hear that.",
        (
            "I love {thing}.",
            "We saw a film about {thing} yesterday.",
            "My sister {first} has a birthday today.",
            "We had a walk near {site}, it was lovely.",
            "I spent the summer with {person}, and it was great.",
            "My neighbour {person} told me all about {thing}.",
            "There is a beautiful view from {site}.",
            "I am reading a book about {thing}.",
            "I have {number} postcards of {thing} at home.",
        ),
    ),
    (
        "That is hard to say: people think differently about it.",
        (
            "Do you like {thing}?",
            "What do you think of {thing}?",
            "Is {thing} better than {other}?",
            "Would you rather have {thing} or {other}?",
            "Why do so many people love {thing}?",
            "Who is your favourite writer?",
            "Is {first} a beautiful name?",
            "What makes {thing} so popular?",
        ),
    ),
    (
        "I only know a little about that, I am afraid.",
        (
            "What is {thing}?",
            "Can you explain {thing} to a child?",
            "Tell me something about {thing}.",
            "Where does the word {thing} come from?",
            "How do you spell {first}?",
            "Who invented {thing}?",
            "What is {number} times {number}?",
            "Is it true that {thing} came before {other}?",
            "Say something funny about {thing}.",
            "Tell me a story with {number} bears in it.",
            "Name a song about {thing}.",
            "Let us talk about {thing}.",
            "What is so special about {number}?",
            "Do you know a riddle about {thing}?",
            "How many letters are there in {first}?",
            "When is it time for {thing}?",
        ),
    ),
)
WISHES = (
    "{do} {what} for {person}.",
    "{do} {what} near {site}, please.",
    "Please {do} {what}.",
    "{do} {number} of {what} by tomorrow.",
    "I want you to {do} {what} at {site}.",
    "{do} {what} with {thing}.",
)
NO_TOOL = "I am sorry, I have no tool for that."
DO = "wash|mend|carry|draw|cook|clean|sell|polish|photograph|translate|borrow|sew|print|fold|weigh|repair"
WHAT = (
    "the curtains|my bicycle|the big window|two chairs|the kitchen floor|a birthday cake|the blue lamp|"
    "an old clock|the garden fence|my winter coat|some soup|the menu|a long letter|the violin|the dog|"
    "three kites|the rabbit|a wooden spoon|the ladder|our car"
)
THINGS = (
    "rain|winter|coffee|football|mountains|chess|honesty|music|snow|courage|tea|history|the sea|jazz|poetry|"
    "friendship|the moon|volcanoes|swimming|philosophy|cheese|theatre|autumn|curiosity|green|the weather|dancing|"
    "gravity|luck|eleven"
)
